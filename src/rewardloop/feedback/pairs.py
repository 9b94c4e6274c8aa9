"""Decided pairs in feedback of any kind: what the accuracy of a reward is measured on, and how far people agree."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from rewardloop.feedback.splits import topic_of
from rewardloop.types import Edit, Feedback, Preference, Prompt, Ranking, Rating


@dataclass(frozen=True, slots=True, eq=False)
class DecidedPairs:
    """B pairs of completions of which people found one better."""

    prompts: tuple[Prompt, ...]
    firsts: tuple[str, ...]
    seconds: tuple[str, ...]
    first_won_B: np.ndarray  # bool
    clusters: tuple[Hashable, ...]  # pairs of one cluster are not independent: those of a prompt

    def __len__(self) -> int:
        return len(self.prompts)


_Pair = tuple[Prompt, str, str, bool, Hashable]


def decided_pairs(feedback: Sequence[Feedback], seed: int = 0) -> DecidedPairs:
    """All choices (no ties), pairs of a ranking, corrections, and ratings of different height.

    Ratings of one prompt, criterion and scale are paired at random, each with one other. Who is first is drawn for
    rankings, corrections and ratings: their order means nothing.
    """
    rng = np.random.default_rng(seed)
    found: list[_Pair] = []
    for judgment in feedback:
        found += _pairs_of(judgment, rng)
    found += _rated_pairs([judgment for judgment in feedback if isinstance(judgment, Rating)], rng)
    columns = list(zip(*found, strict=True)) or [(), (), (), (), ()]
    prompts, firsts, seconds, won, clusters = columns
    return DecidedPairs(prompts, firsts, seconds, np.array(won, dtype=bool), clusters)


def annotator_agreement(feedback: Sequence[Feedback]) -> tuple[float, int] | None:
    """How often two people who chose between the same two texts chose the same one, and of how many such meetings.

    No reward can be expected to agree with people much better than they with each other. None where no two did.
    """
    votes: dict[Hashable, dict[str, str]] = {}
    for judgment in feedback:
        if isinstance(judgment, Preference) and judgment.annotator and judgment.choice in ("first", "second"):
            winner = judgment.first if judgment.choice == "first" else judgment.second
            key = (judgment.prompt, frozenset((judgment.first, judgment.second)))
            votes.setdefault(key, {})[judgment.annotator] = winner
    meetings = [a == b for people in votes.values() for a, b in combinations(people.values(), 2)]
    return (float(np.mean(meetings)), len(meetings)) if meetings else None


def _pairs_of(judgment: Feedback, rng: np.random.Generator) -> Iterator[_Pair]:
    topic = topic_of(judgment.prompt)
    match judgment:
        case Preference(prompt=prompt, first=first, second=second, choice="first" | "second" as choice):
            yield prompt, first, second, choice == "first", topic or first
        case Edit(prompt=prompt, completion=completion, corrected=corrected) if completion != corrected:
            yield _turned((prompt, corrected, completion, True, topic or completion), rng)
        case Ranking(prompt=prompt, completions=completions, ranks=ranks):
            for (a, rank_a), (b, rank_b) in combinations(zip(completions, ranks, strict=True), 2):
                if rank_a != rank_b and a != b:
                    yield _turned((prompt, a, b, rank_a < rank_b, topic or completions[0]), rng)


def _rated_pairs(ratings: Sequence[Rating], rng: np.random.Generator) -> Iterator[_Pair]:
    groups: dict[Hashable, list[Rating]] = {}
    for rating in ratings:
        groups.setdefault((rating.prompt, rating.criterion, rating.scale), []).append(rating)
    for group in groups.values():
        order = [group[number] for number in rng.permutation(len(group))]
        for a, b in zip(order[::2], order[1::2], strict=False):
            if a.value != b.value and a.completion != b.completion:
                yield a.prompt, a.completion, b.completion, a.value > b.value, topic_of(a.prompt) or a.completion


def _turned(pair: _Pair, rng: np.random.Generator) -> _Pair:
    prompt, first, second, won, cluster = pair
    return pair if rng.random() < 0.5 else (prompt, second, first, not won, cluster)
