"""Conversations in the forms in which files hold them: lists of messages, transcripts, plain text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal, cast

from rewardloop.errors import DataError
from rewardloop.types import Message, Prompt

Role = Literal["system", "user", "assistant"]
_ROLES: dict[str, Role] = {
    "system": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
}
_TURN = re.compile(r"(?:^|\n\n)(Human|Assistant|System):[ \n]?")
_SPEAKERS = {"user": "Human", "assistant": "Assistant", "system": "System"}


def is_messages(value: Any) -> bool:
    """A non-empty list of {"role", "content"} (or {"from", "value"}) mappings."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(
            isinstance(turn, dict) and ({"role", "content"} <= turn.keys() or {"from", "value"} <= turn.keys())
            for turn in value
        )
    )


def read_messages(value: Sequence[dict[str, Any]]) -> tuple[Message, ...]:
    """Messages from {"role", "content"} or {"from", "value"}. Raises DataError for an unknown role or no text."""
    messages = []
    for turn in value:
        role = turn.get("role", turn.get("from"))
        content = turn.get("content", turn.get("value"))
        if role not in _ROLES:
            raise DataError(f"a message has the role {role!r}; known are {', '.join(_ROLES)}")
        if isinstance(content, list):  # parts of content, as some chat logs hold them
            content = "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
        if not isinstance(content, str):
            raise DataError(f"a message of {role!r} has {type(content).__name__} as content; expected text")
        messages.append(Message(_ROLES[role], content))
    return tuple(messages)


def is_transcript(value: Any) -> bool:
    """Text with "\\n\\nHuman:" and "\\n\\nAssistant:" turns."""
    return isinstance(value, str) and {"Human", "Assistant"} <= set(_TURN.findall(value))


def read_transcript(text: str) -> tuple[Message, ...]:
    """Messages of a transcript; blanks around a turn are not part of it."""
    parts = _TURN.split(text)
    names = {speaker: role for role, speaker in _SPEAKERS.items()}
    return tuple(
        Message(cast(Role, names[speaker]), content.strip())
        for speaker, content in zip(parts[1::2], parts[2::2], strict=True)
    )


def write_transcript(messages: Sequence[Message]) -> str:
    """The turns as "Speaker: content", two line feeds between them; a single message is its content."""
    if len(messages) == 1:
        return messages[0].content
    return "\n\n".join(f"{_SPEAKERS[turn.role]}: {turn.content}" for turn in messages)


def write_dialogue(messages: Sequence[Message]) -> str:
    """The whole conversation, an empty line before every turn, as HH-RLHF has it."""
    return "".join(f"\n\n{_SPEAKERS[turn.role]}: {turn.content}" for turn in messages)


def split_answer(messages: tuple[Message, ...]) -> tuple[Prompt, str]:
    """(prompt, completion) of a conversation that ends with the assistant. Raises DataError where it does not."""
    if not messages or messages[-1].role != "assistant":
        raise DataError("the conversation must end with a turn of the assistant, which is what was judged")
    return messages[:-1], messages[-1].content


def split_common(first: Any, second: Any) -> tuple[Prompt, str, str]:
    """Prompt, first and second completion of two whole dialogues (messages, transcripts or texts) with a common start.

    Where they part before the last turn, the rest is kept as a transcript. Texts part at a blank.
    """
    if is_messages(first) and is_messages(second):
        return _split_messages(read_messages(first), read_messages(second))
    if is_transcript(first) and is_transcript(second):
        return _split_messages(read_transcript(first), read_transcript(second))
    if isinstance(first, str) and isinstance(second, str):
        return _split_texts(first, second)
    raise DataError(
        f"two dialogues in the same form were expected, given {type(first).__name__} and {type(second).__name__}"
    )


def _split_messages(first: tuple[Message, ...], second: tuple[Message, ...]) -> tuple[Prompt, str, str]:
    shortest = min(len(first), len(second))
    common = next((i for i in range(shortest) if first[i] != second[i]), shortest)
    while common and (common == shortest or first[common].role != "assistant" or second[common].role != "assistant"):
        common -= 1  # an answer begins with a turn of the assistant
    return first[:common], write_transcript(first[common:]), write_transcript(second[common:])


def _split_texts(first: str, second: str) -> tuple[Prompt, str, str]:
    shortest = min(len(first), len(second))
    common = next((i for i in range(shortest) if first[i] != second[i]), shortest)
    while common and not first[common - 1].isspace():
        common -= 1
    return first[:common], first[common:], second[common:]
