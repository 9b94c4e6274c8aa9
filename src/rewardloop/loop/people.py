"""Whom the loop asks: simulated annotators of the sandbox, or files of feedback that people have given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from rewardloop.sandbox.annotators import SimulatedAnnotator
from rewardloop.types import Completion, Feedback, Rollout

# How often each kind of question is asked when replies are mixed: what a chat page sees, roughly.
MIXED = {"preference": 0.4, "edit": 0.3, "rating": 0.2, "thumb": 0.1}


class People(Protocol):
    """Give feedback on completions."""

    def reply(self, rollout: Rollout, count: int, rng: np.random.Generator) -> list[Feedback]:
        """Up to `count` judgments of completions of `rollout`; fewer when there is nothing more to say."""


@dataclass(frozen=True)
class SimulatedPeople:
    """Annotators who know the world's truth, asked in turn."""

    annotators: tuple[SimulatedAnnotator, ...]
    replies: str = "mixed"

    def reply(self, rollout: Rollout, count: int, rng: np.random.Generator) -> list[Feedback]:
        groups = _distinct_by_group(rollout)
        order = rng.permutation(len(groups))
        kinds = self._kinds(count, rng)
        feedback: list[Feedback] = []
        for turn in range(count):
            siblings = groups[int(order[turn % len(order)])]
            annotator = self.annotators[turn % len(self.annotators)]
            feedback.append(_ask(annotator, kinds[turn], siblings, rng))
        return feedback

    def _kinds(self, count: int, rng: np.random.Generator) -> list[str]:
        if self.replies != "mixed":
            return [self.replies] * count
        return [str(kind) for kind in rng.choice(list(MIXED), size=count, p=list(MIXED.values()))]


@dataclass
class FeedbackOnFile:
    """Feedback that is there already; handed out in order, whatever was sampled."""

    feedback: Sequence[Feedback]
    given: int = 0

    def reply(self, rollout: Rollout, count: int, rng: np.random.Generator) -> list[Feedback]:
        part = list(self.feedback[self.given : self.given + count])
        self.given += len(part)
        return part


def _ask(annotator: SimulatedAnnotator, kind: str, siblings: list[Completion], rng: np.random.Generator) -> Feedback:
    picked = rng.permutation(len(siblings))
    first = siblings[int(picked[0])]
    if kind == "preference" and len(siblings) > 1:
        second = siblings[int(picked[1])]
        return annotator.prefer(first.prompt, first.text, second.text)
    if kind == "rating":
        return annotator.rate(first.prompt, first.text)
    if kind == "thumb":
        return annotator.thumb(first.prompt, first.text)
    return annotator.edit(first.prompt, first.text)


def _distinct_by_group(rollout: Rollout) -> list[list[Completion]]:
    """Completions of each group, every text once: nobody is asked to choose between two equal texts."""
    groups: dict[int, dict[str, Completion]] = {}
    for completion, group in zip(rollout.completions, rollout.groups, strict=True):
        groups.setdefault(group, {}).setdefault(completion.text, completion)
    return [list(texts.values()) for texts in groups.values()]
