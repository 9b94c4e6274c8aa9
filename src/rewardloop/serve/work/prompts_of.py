"""Where questions for annotators come from: the town, or what people have asked."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from sqlalchemy import select

from rewardloop.feedback.log.database import reading
from rewardloop.feedback.log.event_log import LogReader
from rewardloop.feedback.log.schema import event
from rewardloop.sandbox.dialogues import DEFECTS, answer, clean_answer, training_questions
from rewardloop.sandbox.world import build_world
from rewardloop.types import Prompt

TRAFFIC: Final = "traffic"


def prompts_of_town(count: int) -> list[Any]:
    """Questions about the town, the same at every call."""
    questions = training_questions(build_world(0))
    order = np.random.default_rng(1).permutation(len(questions))[:count]
    return [as_json(questions[int(at)].prompt) for at in order]


def gold_of_town(count: int) -> list[dict[str, Any]]:
    """A true answer, and one with all three defects, to questions that `prompts_of_town` comes to last."""
    world, rng = build_world(0), np.random.default_rng(2)
    questions = training_questions(world)
    order = np.random.default_rng(1).permutation(len(questions))[::-1][:count]
    spoiled = dict.fromkeys(DEFECTS, 1.0)
    return [
        {
            "prompt": as_json(questions[int(at)].prompt),
            "better": clean_answer(world, questions[int(at)], rng),
            "worse": answer(world, questions[int(at)], rng, spoiled).text,
        }
        for at in order
    ]


def prompts_of_traffic(log: LogReader, count: int) -> list[Any]:
    """What was asked last, each once; clients' own errands are left out."""
    query = (
        select(event.c.body).where(event.c.kind == "completion.started").order_by(event.c.seq.desc()).limit(20 * count)
    )
    with reading(log.reader) as connection:
        bodies = list(connection.scalars(query))
    asked = (body["prompt"] for body in bodies if not body.get("side") and _is_text(body["prompt"]))
    found: dict[str, Any] = {}
    for prompt in asked:
        found.setdefault(str(prompt), prompt)
    return list(found.values())[:count]


def as_json(prompt: Prompt) -> Any:
    """A prompt as events hold it."""
    if isinstance(prompt, str):
        return prompt
    return [{"role": message.role, "content": message.content} for message in prompt]


def _is_text(prompt: Any) -> bool:
    return isinstance(prompt, str) or all(isinstance(turn, dict) for turn in prompt)
