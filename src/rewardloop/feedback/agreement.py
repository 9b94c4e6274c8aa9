"""How far people agree with each other, and each with themselves.

Alpha is Krippendorff's (2011, "Computing Krippendorff's Alpha-Reliability"): 1 - observed / expected disagreement,
1 is perfect, 0 is chance, below 0 is systematic disagreement. It takes any number of people, who may have judged
different items, and respects the order of steps. What is compared, by kind:

    preference, thumb, flag    nominal    which text won (whatever side it was on); up or down
    rating, dialogue, ranking  ordinal    the step; the rank of each text
    edit, span, live           interval   the share of the text that was changed; the sum of the marks
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import krippendorff
import numpy as np

from rewardloop.feedback.edits import similarity
from rewardloop.types import Dialogue, Edit, Feedback, Flag, Live, Preference, Ranking, Rating, Span

Level = Literal["nominal", "ordinal", "interval", "ratio"]
_RESAMPLES = 200  # of the items, for the interval of alpha


@dataclass(frozen=True, slots=True)
class Question:
    """What was asked: answers to one question can be compared."""

    kind: str  # "preference", "rating 1-5", "ranking of 3" ...
    criterion: str
    level: Level


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far people agree on one question, over the items that two or more of them judged."""

    question: Question
    items: int
    people: int
    judgments: int
    alpha: float | None  # None where everybody always said the same: then there is nothing to agree about
    interval: tuple[float, float] | None  # 95 %, by resampling items
    same: float  # share of meetings of two people on an item in which both said the same
    ac1: float | None  # nominal only


Votes = dict[Hashable, dict[str, list[float]]]  # item -> person -> what they said, in order


def measure_agreement(feedback: Sequence[Feedback], seed: int = 0) -> tuple[Agreement, ...]:
    """Agreement for every question on which two people met. Of repeats, a person's first judgment counts."""
    return tuple(
        _measure(question, votes, seed)
        for question, votes in collect_votes(feedback).items()
        if any(len(people) > 1 for people in votes.values())
    )


def collect_votes(feedback: Sequence[Feedback]) -> dict[Question, Votes]:
    """What each named person said about each item, by question. Judgments without a name are left out."""
    found: dict[Question, Votes] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    marks: dict[tuple[Question, Hashable, str], float] = defaultdict(float)
    for judgment in feedback:
        if not judgment.annotator:
            continue
        for question, item, value in _answers(judgment):
            if question.kind == "marks":
                marks[question, item, judgment.annotator] += value
            else:
                found[question][item][judgment.annotator].append(value)
    for (question, item, annotator), value in marks.items():
        found[question][item][annotator].append(round(value, 2))
    return {question: {item: dict(people) for item, people in votes.items()} for question, votes in found.items()}


def count_votes(votes: Mapping[Hashable, Mapping[str, Sequence[float]]]) -> tuple[np.ndarray, np.ndarray]:
    """How many people gave each value: counts_IV of the items that two or more judged, and the values, rising."""
    units = [[said[0] for said in people.values()] for people in votes.values() if len(people) > 1]
    values = np.unique([value for unit in units for value in unit])
    counts_IV = np.zeros((len(units), len(values)), dtype=np.int64)
    for row, unit in enumerate(units):
        np.add.at(counts_IV[row], np.searchsorted(values, unit), 1)
    return counts_IV, values


def compute_alpha(counts_IV: np.ndarray, values: np.ndarray, level: Level) -> float | None:
    """Krippendorff's alpha of I items, V values, counts_IV[i, v] people who gave item i the value v.

    None where fewer than two values occur among items that two people judged.
    """
    judged = counts_IV[counts_IV.sum(1) > 1]
    used = judged.any(0)
    if used.sum() < 2:
        return None
    return float(
        krippendorff.alpha(value_counts=judged[:, used], value_domain=values[used], level_of_measurement=level)
    )


def compute_same(counts_IV: np.ndarray) -> float:
    """Share of meetings of two people on an item in which both gave the same value."""
    people_I = counts_IV.sum(1)
    return float((counts_IV * (counts_IV - 1)).sum() / (people_I * (people_I - 1)).sum())


def compute_cohen(first_I: np.ndarray, second_I: np.ndarray) -> float | None:
    """Cohen's (1960) kappa of two people over I items. None where both always said one and the same thing."""
    values = np.unique(np.concatenate([first_I, second_I]))
    shares_2V = np.array([(person[:, None] == values).mean(0) for person in (first_I, second_I)])
    return _above_chance(float(np.mean(first_I == second_I)), float((shares_2V[0] * shares_2V[1]).sum()))


def compute_fleiss(counts_IV: np.ndarray) -> float | None:
    """Fleiss' (1971) kappa; every item judged by the same number of people."""
    shares_V = counts_IV.sum(0) / counts_IV.sum()
    return _above_chance(_mean_same(counts_IV), float((shares_V**2).sum()))


def compute_ac1(counts_IV: np.ndarray) -> float | None:
    """Gwet's (2008) AC1: as kappa, but does not collapse where one answer is nearly always right."""
    shares_V = (counts_IV / counts_IV.sum(1, keepdims=True)).mean(0)
    if len(shares_V) < 2:
        return None
    return _above_chance(_mean_same(counts_IV), float((shares_V * (1 - shares_V)).sum() / (len(shares_V) - 1)))


def _above_chance(same: float, chance: float) -> float | None:
    return None if chance >= 1 else (same - chance) / (1 - chance)


def _mean_same(counts_IV: np.ndarray) -> float:
    """As compute_same, every item counting alike."""
    people_I = counts_IV.sum(1)
    return float(np.mean((counts_IV * (counts_IV - 1)).sum(1) / (people_I * (people_I - 1))))


def _measure(question: Question, votes: Votes, seed: int) -> Agreement:
    counts_IV, values = count_votes(votes)
    met = [people for people in votes.values() if len(people) > 1]
    return Agreement(
        question=question,
        items=len(met),
        people=len({name for people in met for name in people}),
        judgments=int(counts_IV.sum()),
        alpha=compute_alpha(counts_IV, values, question.level),
        interval=_resample_alpha(counts_IV, values, question.level, seed),
        same=compute_same(counts_IV),
        ac1=compute_ac1(counts_IV) if question.level == "nominal" else None,
    )


def _resample_alpha(counts_IV: np.ndarray, values: np.ndarray, level: Level, seed: int) -> tuple[float, float] | None:
    rng, items = np.random.default_rng(seed), len(counts_IV)
    drawn = [compute_alpha(counts_IV[rng.integers(items, size=items)], values, level) for _ in range(_RESAMPLES)]
    alphas = [alpha for alpha in drawn if alpha is not None]
    if len(alphas) < _RESAMPLES / 2:
        return None
    low, high = np.quantile(alphas, [0.025, 0.975])
    return float(low), float(high)


def _answers(judgment: Feedback) -> Iterator[tuple[Question, Hashable, float]]:
    """(question, item, value) of one judgment; nothing for words, which need a reader."""
    criterion, prompt = judgment.criterion, judgment.prompt
    match judgment:
        case Preference(first=first, second=second) if first != second:
            item = prompt, frozenset((first, second))
            yield Question("preference", criterion, "nominal"), item, winner_value(judgment)
        case Rating(completion=text, value=value, scale=scale):
            level: Level = "ordinal" if scale.categories > 2 else "nominal"
            yield Question(f"rating {scale.low}-{scale.high}", criterion, level), (prompt, text), value
        case Ranking(completions=texts, ranks=ranks):
            question = Question(f"ranking of {len(texts)}", criterion, "ordinal")
            for text, rank in zip(texts, ranks, strict=True):
                yield question, (prompt, frozenset(texts), text), rank
        case Edit(completion=text, corrected=corrected):
            yield Question("edit", criterion, "interval"), (prompt, text), round(1 - similarity(text, corrected), 2)
        case Dialogue(completion=text, evaluation=int(evaluation)):
            yield Question("dialogue", criterion, "ordinal"), (prompt, text), evaluation
        case Span(completion=text, severity=severity):
            yield Question("marks", criterion, "interval"), (prompt, text), severity
        case Live(completion=text, value=value):
            yield Question("marks", criterion, "interval"), (prompt, text), value
        case Flag():
            return  # who saw an answer and did not flag it is not known


def winner_value(choice: Preference) -> float:
    """1 or 2, the text that won, of the two in alphabetical order; 0 for a tie, -1 for both bad."""
    if choice.choice in ("tie", "both_bad"):
        return 0 if choice.choice == "tie" else -1
    won = choice.first if choice.choice == "first" else choice.second
    return 1 if won == min(choice.first, choice.second) else 2


# ---------------------------------------------------------------- each with themselves


@dataclass(frozen=True, slots=True)
class Consistency:
    """What one person said when asked the same again; for choices, with the sides swapped or not."""

    annotator: str
    repeats: int  # pairs of a first judgment and a later one of the same item
    same: float  # share of them that said the same
    interval: tuple[float, float]  # 95 %, Wilson
    alpha: float | None  # Krippendorff's, of first against later, over the question with most repeats
    swapped: int  # repeats of a choice with the sides swapped
    kept_side: float | None  # share of those in which the other text won, because it was on the same side


def measure_consistency(feedback: Sequence[Feedback]) -> tuple[Consistency, ...]:
    """Consistency of everybody who was asked something twice, by name."""
    pairs: dict[str, dict[Question, list[tuple[float, float]]]] = defaultdict(lambda: defaultdict(list))
    for question, votes in collect_votes(feedback).items():
        for people in votes.values():
            for name, said in people.items():
                pairs[name][question] += [(said[0], later) for later in said[1:]]
    sides = _swapped_sides(feedback)
    return tuple(
        _consistency(name, repeats, sides.get(name, []))
        for name, repeats in sorted(pairs.items())
        if any(repeats.values())
    )


def _consistency(name: str, repeats: Mapping[Question, list[tuple[float, float]]], kept: Sequence[bool]) -> Consistency:
    said = [pair for pairs in repeats.values() for pair in pairs]
    question, most = max(repeats.items(), key=lambda entry: len(entry[1]))
    counts_IV, values = count_votes({n: {"first": [a], "later": [b]} for n, (a, b) in enumerate(most)})
    same = sum(a == b for a, b in said)
    return Consistency(
        annotator=name,
        repeats=len(said),
        same=same / len(said),
        interval=wilson_interval(same, len(said)),
        alpha=compute_alpha(counts_IV, values, question.level),
        swapped=len(kept),
        kept_side=float(np.mean(kept)) if kept else None,
    )


def _swapped_sides(feedback: Sequence[Feedback]) -> dict[str, list[bool]]:
    """For each person's repeats with the sides swapped: did they choose the same side again?"""
    first_seen: dict[Hashable, Preference] = {}
    kept: dict[str, list[bool]] = defaultdict(list)
    for choice in feedback:
        if not (isinstance(choice, Preference) and choice.annotator) or choice.first == choice.second:
            continue
        key = choice.annotator, choice.criterion, choice.prompt, frozenset((choice.first, choice.second))
        before = first_seen.setdefault(key, choice)
        if before.first != choice.first:
            kept[choice.annotator].append(choice.choice == before.choice and choice.choice in ("first", "second"))
    return kept


def wilson_interval(count: int, total: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's (1927) interval of a share, count of total > 0; z = 1.96 is 95 %."""
    share, spread = count / total, z * z / total
    middle = share + spread / 2
    half = z * math.sqrt(share * (1 - share) / total + spread / (4 * total))
    return (middle - half) / (1 + spread), (middle + half) / (1 + spread)
