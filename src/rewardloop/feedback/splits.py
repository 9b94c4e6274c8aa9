"""Splits by prompt: no prompt that was learned from is measured on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rewardloop.errors import DataError
from rewardloop.types import Feedback, Prompt


def split_by_prompt(feedback: Sequence[Feedback], held_out: float, seed: int) -> tuple[list[Feedback], list[Feedback]]:
    """(train, held out): the share `held_out` of the prompts, drawn by `seed`, with all that was said about them.

    Conversations that open with the same turn of the user are one prompt: they share what could be remembered. Feedback
    without prompts ("") is split by its texts. At least one prompt on each side; raises DataError when there is only
    one.
    """
    if not 0 < held_out < 1:
        raise DataError(f"the held-out share is {held_out}; expected a share between 0 and 1, for example 0.2")
    keys = [judgment_topic(judgment) for judgment in feedback]
    topics = sorted(set(keys))
    if len(topics) < 2:
        raise DataError("all feedback is about one prompt: nothing can be held out; give feedback on two or more")
    order = np.random.default_rng(seed).permutation(len(topics))
    count = min(max(round(held_out * len(topics)), 1), len(topics) - 1)
    kept_back = {topics[number] for number in order[:count]}
    train = [judgment for judgment, key in zip(feedback, keys, strict=True) if key not in kept_back]
    return train, [judgment for judgment, key in zip(feedback, keys, strict=True) if key in kept_back]


def topic_of(prompt: Prompt) -> str:
    """What makes two prompts the same for a split: the text, or the first turn of the user."""
    if isinstance(prompt, str):
        return prompt
    return next((turn.content for turn in prompt if turn.role == "user"), "")


def judgment_topic(judgment: Feedback) -> str:
    """The topic of its prompt; its first text, where there is no prompt."""
    return topic_of(judgment.prompt) or _first_text(judgment)


def _first_text(judgment: Feedback) -> str:
    for name in ("completion", "first"):
        if hasattr(judgment, name):
            return str(getattr(judgment, name))
    return str(getattr(judgment, "completions", ("",))[0])
