"""What the learner has heard: every settled judgment up to a position of the log, and what each is used for.

One topic in four is only watched: those judgments never train the reward that the policy follows, but a second one
that judges what came of it. A policy that games the first has no reason to please the second.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from rewardloop.feedback.log.event_log import LogReader
from rewardloop.feedback.log.settled import SETTLING_S, SettledFeedback, settled_feedback
from rewardloop.feedback.splits import judgment_topic, topic_of
from rewardloop.types import Completion, Feedback, Prompt, Rating, Scale

WATCHED: Final = 4  # one topic in so many
CANARIES: Final = 5  # one prompt in so many is never trained on
MOST_FITTED: Final = 2000  # judgments that one fit of the reward reads
PAGE: Final = 1000
EXCLUSIONS: Final = ("annotator.excluded", "annotator.included")


@dataclass(eq=False)
class Memory:
    """Judgments by id, in the order in which they became ready."""

    log: LogReader
    settling_s: float = SETTLING_S
    last_seq: int = 0  # everything up to here has been heard
    unusable: int = 0  # judgments that did not fit their completions
    _items: dict[str, SettledFeedback] = field(default_factory=dict)
    _excluded: set[str] = field(default_factory=set)

    def listen(self, now: float, limit: int = PAGE) -> list[SettledFeedback]:
        """What has settled since, at most about `limit` judgments; what was withdrawn is forgotten."""
        page = settled_feedback(self.log, self.last_seq, now, self.settling_s, limit)
        for gone in page.withdrawn:
            self._items.pop(gone, None)
        self._items |= {item.id: item for item in page.items}
        self.unusable += len(page.unusable)
        self._exclude(page.last_seq)
        self.last_seq = page.last_seq
        return [item for item in page.items if item.id in self._items]

    def recall(self, until: int) -> None:
        """Hear again everything up to position `until`: what a learner knew that stopped there."""
        self.last_seq, self._items, self._excluded = 0, {}, set()
        while self.last_seq < until:
            before = self.last_seq
            self.listen(float("inf"), PAGE)
            self._items = {key: item for key, item in self._items.items() if item.ready_seq <= until}
            if self.last_seq == before:
                break
        self.last_seq = until

    def __len__(self) -> int:
        return len(self._items)

    @property
    def ids(self) -> frozenset[str]:
        """Of the judgments that count."""
        return frozenset(key for key, item in self._items.items() if item.annotator not in self._excluded)

    def watched(self, rng: np.random.Generator) -> list[Feedback]:
        """Judgments that only the judge learns from; where they are too many for one fit, a replay of them."""
        items = [item for item in self._counted() if is_watched(item.feedback)]
        kept = items if len(items) <= MOST_FITTED else replayed(items, MOST_FITTED, rng)
        ids = {item.id for item in kept}
        return [item.feedback for item in items if item.id in ids]

    def opinions(self, version: int) -> list[tuple[Scale, int]]:
        """Overall ratings of answers that this version alone has spoken, in order."""
        return [
            (item.feedback.scale, item.feedback.value)
            for item in self._counted()
            if isinstance(item.feedback, Rating) and item.feedback.criterion == "overall" and _spoke(version, item)
        ]

    def trained_on(
        self, fresh: Sequence[SettledFeedback], rng: np.random.Generator
    ) -> tuple[list[Feedback], list[Feedback]]:
        """(old, new) judgments that the reward learns from; `fresh`: those heard in this round.

        All of them, or where they are too many for one fit, half new ones and half a replay of old ones.
        """
        fresh_ids = {item.id for item in fresh}
        usable = [item for item in self._counted() if not is_watched(item.feedback)]
        new = [item for item in usable if item.id in fresh_ids]
        old = [item for item in usable if item.id not in fresh_ids]
        if len(usable) > MOST_FITTED:
            new = new[-MOST_FITTED // 2 :]
            kept = {item.id for item in replayed(old, MOST_FITTED - len(new), rng)}
            old = [item for item in old if item.id in kept]
        return [item.feedback for item in old], [item.feedback for item in new]

    def _counted(self) -> list[SettledFeedback]:
        """In order, without those of excluded people."""
        counted = [item for item in self._items.values() if item.annotator not in self._excluded]
        return sorted(counted, key=lambda item: (item.ready_seq, item.seq))

    def _exclude(self, until: int) -> None:
        after = self.last_seq
        for event in self.log.read(after, EXCLUSIONS, PAGE):
            if event.seq <= until and event.target_id is not None:
                (self._excluded.add if event.kind == EXCLUSIONS[0] else self._excluded.discard)(event.target_id)


def replayed(items: Sequence[SettledFeedback], count: int, rng: np.random.Generator) -> list[SettledFeedback]:
    """`count` of `items`, an equal share of every kind as far as there are so many: rare kinds are not forgotten."""
    by_kind: dict[str, list[SettledFeedback]] = defaultdict(list)
    for item in items:
        by_kind[type(item.feedback).__name__].append(item)
    chosen: list[SettledFeedback] = []
    for left, group in zip(range(len(by_kind), 0, -1), sorted(by_kind.values(), key=len), strict=True):
        share = min(len(group), (count - len(chosen)) // left)
        chosen += [group[place] for place in rng.permutation(len(group))[:share]]
    return chosen


def joinable(heard: Sequence[SettledFeedback], temperature: float, oldest: int) -> list[Completion]:
    """Completions that people have just judged and that the policy may still learn from as samples of its own.

    Each once, however many people spoke of it: sampled plainly at the policy's temperature (else its log-probs are of
    another distribution), to its end, and under weights no older than version `oldest`.
    """
    found: dict[tuple[str, int], Completion] = {}
    for stored in (stored for item in heard for stored in item.completions):
        said = stored.completion
        whole = len(said.token_ids) > 0 and len(said.logprobs_T) == len(said.token_ids) == len(said.weight_versions_T)
        fresh = whole and said.temperature == temperature and int(said.weight_versions_T.min()) >= oldest
        if fresh and stored.plain and said.finish_reason in ("stop", "length"):
            found.setdefault((stored.completion_id, stored.choice), said)
    return list(found.values())


def _spoke(version: int, item: SettledFeedback) -> bool:
    """Whether this version alone has spoken what was judged."""
    return all(set(stored.completion.weight_versions_T.tolist()) == {version} for stored in item.completions)


def is_watched(judgment: Feedback) -> bool:
    """Whether only the judge learns from it."""
    return _bucket("watch", judgment_topic(judgment)) % WATCHED == 0


def is_canary(prompt: Prompt) -> bool:
    """Whether versions are compared on it, and nothing is ever trained on it."""
    return _bucket("canary", topic_of(prompt)) % CANARIES == 0


def _bucket(purpose: str, topic: str) -> int:
    """A number that the topic alone decides: no list has to be kept of who is on which side."""
    return int.from_bytes(hashlib.sha256(f"{purpose}:{topic}".encode()).digest()[:4], "big")
