"""Conversations as the text a model continues: by its own chat template, or plainly.

A template comes from the model's folder alone, never from a request, and runs in the sandbox that
transformers gives it.
"""

from __future__ import annotations

from typing import Any

from jinja2.exceptions import TemplateError

from rewardloop.errors import ModelError
from rewardloop.types import Message

SPEAKERS = {"user": "User", "assistant": "Assistant"}


def render_conversation(tokenizer: Any, messages: tuple[Message, ...]) -> tuple[str, bool]:
    """The text to continue, and whether special tokens (such as a start token) must still be added to it.

    Raises ModelError where the conversation is empty or the template refuses it.
    """
    if not messages:
        raise ModelError("the prompt is a conversation without a message; give at least one")
    if not tokenizer.chat_template:
        return render_plainly(messages), True
    turns = [{"role": message.role, "content": message.content} for message in messages]
    try:
        text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    except (TemplateError, ValueError, TypeError) as error:
        roles = ", ".join(message.role for message in messages)
        raise ModelError(f"the model's chat template refuses a conversation of {roles}: {error}") from error
    return str(text), False


def render_plainly(messages: tuple[Message, ...]) -> str:
    """For a model without a template: "User: ..." and "Assistant: ..." on lines of their own."""
    lines = [
        message.content if message.role == "system" else f"{SPEAKERS[message.role]}: {message.content}"
        for message in messages
    ]
    return "\n".join([*lines, "Assistant:"])
