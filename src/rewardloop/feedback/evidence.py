"""Feedback of all kinds as three tables over one list of texts: what the likelihood (reward/likelihood.py) reads.

Preference, Edit, rewrite                            -> comparisons
Rating, thumb, Flag, evaluation, marks (Span, Live)  -> ordinals
Ranking                                              -> rankings
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TypeVar

import numpy as np

from rewardloop.errors import DataError
from rewardloop.feedback.edits import similarity
from rewardloop.types import (
    THUMB,
    Comment,
    Dialogue,
    Edit,
    Feedback,
    Flag,
    Live,
    Preference,
    Prompt,
    Ranking,
    Rating,
    Scale,
    Span,
)

FIRST, TIE, SECOND, BOTH_BAD = 0, 1, 2, 3
CHOICES = {"first": FIRST, "tie": TIE, "second": SECOND, "both_bad": BOTH_BAD}
KINDS = ("preference", "edit", "ranking", "rating", "dialogue")
EDIT_MARGIN = 1.0  # m0: a text rewritten from nothing should win by this many logits
REACTION = Scale(low=-1, high=1)

Text = tuple[Prompt, str]


@dataclass(frozen=True, slots=True, eq=False)
class Comparisons:
    """E choices between two texts."""

    texts_E2: np.ndarray  # index of the text shown first, second
    choice_E: np.ndarray  # FIRST, TIE, SECOND or BOTH_BAD
    margin_E: np.ndarray  # by how many logits the chosen text must win; 0 except for edits
    kind_E: np.ndarray  # index into KINDS
    annotator_E: np.ndarray
    event_E: np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class Ordinals:
    """E steps on a scale, each about one text."""

    text_E: np.ndarray
    category_E: np.ndarray  # 0 is the lowest step
    scale_E: np.ndarray  # index into Evidence.scales
    weight_E: np.ndarray
    kind_E: np.ndarray
    annotator_E: np.ndarray
    event_E: np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class Rankings:
    """E orders of up to K texts; places that do not exist have text -1."""

    texts_EK: np.ndarray
    ranks_EK: np.ndarray  # 1 is best
    annotator_E: np.ndarray
    event_E: np.ndarray


@dataclass(frozen=True, slots=True)
class OrdinalScale:
    """A scale with cutpoints of its own: the same steps may mean other things for another question."""

    criterion: str
    question: str  # "rating", "reaction"
    categories: int


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """What `events` judgments say about `texts`. Every row names the event it came from: they weigh together."""

    texts: tuple[Text, ...]
    scales: tuple[OrdinalScale, ...]
    annotators: tuple[str, ...]  # [0] is "", nobody in particular
    events: int
    comparisons: Comparisons
    ordinals: Ordinals
    rankings: Rankings
    ties_offered: bool
    both_bad_offered: bool
    unused: Mapping[str, int] = field(default_factory=dict)  # reason -> count


def gather_evidence(feedback: Sequence[Feedback]) -> Evidence:
    """Turn judgments into tables. Raises DataError when nothing in them says which texts are better.

    Left out and counted in `unused`: comments (free words need a reader), reactions that are none, pairs of equal
    texts, corrections that change nothing (unedited is not approved).
    """
    gathering = _Gathering()
    for event, judgment in enumerate(feedback):
        gathering.add(event, judgment)
    gathering.add_marks(feedback)
    return gathering.finish(len(feedback))


def select_events(evidence: Evidence, chosen: np.ndarray) -> tuple[Evidence, np.ndarray]:
    """The evidence of some events, renumbered 0 .. len(chosen) - 1, and the numbers of the texts they name.

    Scales, annotators and what was offered stay, so that one channel serves every part.
    """
    place = np.full(evidence.events, -1)
    place[chosen] = np.arange(len(chosen))
    pairs = _rows(evidence.comparisons, place[evidence.comparisons.event_E] >= 0)
    steps = _rows(evidence.ordinals, place[evidence.ordinals.event_E] >= 0)
    orders = _rows(evidence.rankings, place[evidence.rankings.event_E] >= 0)
    named = np.concatenate([pairs.texts_E2.ravel(), steps.text_E, orders.texts_EK[orders.texts_EK >= 0]])
    kept = np.unique(named)
    number = np.full(len(evidence.texts) + 1, -1)  # the last entry serves -1, the text that does not exist
    number[kept] = np.arange(len(kept))
    selected = replace(
        evidence,
        texts=tuple(evidence.texts[text] for text in kept),
        events=len(chosen),
        comparisons=replace(pairs, texts_E2=number[pairs.texts_E2], event_E=place[pairs.event_E]),
        ordinals=replace(steps, text_E=number[steps.text_E], event_E=place[steps.event_E]),
        rankings=replace(orders, texts_EK=number[orders.texts_EK], event_E=place[orders.event_E]),
    )
    return selected, kept


Table = TypeVar("Table", Comparisons, Ordinals, Rankings)


def _rows(table: Table, keep: np.ndarray) -> Table:
    return replace(table, **{column.name: getattr(table, column.name)[keep] for column in fields(table)})


class _Gathering:
    """Rows as they come, and the numbers given to texts, scales and annotators."""

    def __init__(self) -> None:
        self.texts: dict[Text, int] = {}
        self.scales: dict[OrdinalScale, int] = {}
        self.annotators: dict[str, int] = {"": 0}
        self.pairs: list[tuple[int, int, int, float, int, int, int]] = []
        self.steps: list[tuple[int, int, int, float, int, int, int]] = []
        self.orders: list[tuple[list[int], tuple[int, ...], int, int]] = []
        self.unused: Counter[str] = Counter()

    def add(self, event: int, judgment: Feedback) -> None:
        match judgment:
            case Preference(prompt=prompt, first=first, second=second, choice=choice):
                self.compare(event, judgment, (prompt, first), (prompt, second), CHOICES[choice], "preference")
            case Edit(prompt=prompt, completion=completion, corrected=corrected):
                self.correct(event, judgment, (prompt, completion), (prompt, corrected), "edit")
            case Ranking():
                self.order(event, judgment)
            case Rating(prompt=prompt, completion=completion, value=value, scale=scale):
                self.rate(event, judgment, (prompt, completion), value, scale, "rating")
            case Flag(prompt=prompt, completion=completion):
                self.rate(event, judgment, (prompt, completion), THUMB.low, THUMB, "rating")
            case Dialogue():
                self.react(event, judgment)
            case Comment():
                self.unused["comments need a reader"] += 1
            case Span() | Live():
                pass  # add_marks reads them together

    def compare(
        self,
        event: int,
        judgment: Feedback,
        first: Text,
        second: Text,
        choice: int,
        kind: str,
        margin: float = 0.0,
    ) -> None:
        if first[1] == second[1]:
            self.unused["two equal texts"] += 1
            return
        texts = self.number(first), self.number(second)
        self.pairs.append((*texts, choice, margin, KINDS.index(kind), self.who(judgment), event))

    def correct(self, event: int, judgment: Feedback, original: Text, corrected: Text, kind: str) -> None:
        if original[1] == corrected[1]:
            self.unused["corrections that change nothing"] += 1
            return
        margin = EDIT_MARGIN * (1 - similarity(original[1], corrected[1]))
        self.compare(event, judgment, original, corrected, SECOND, kind, margin)

    def order(self, event: int, judgment: Ranking) -> None:
        if len(set(judgment.ranks)) < 2:
            self.unused["rankings without an order"] += 1
            return
        texts = [self.number((judgment.prompt, completion)) for completion in judgment.completions]
        self.orders.append((texts, judgment.ranks, self.who(judgment), event))

    def rate(
        self,
        event: int,
        judgment: Feedback,
        text: Text,
        value: int,
        scale: Scale,
        kind: str,
        *,
        weight: float = 1.0,
        question: str = "rating",
    ) -> None:
        if not scale.low <= value <= scale.high:
            raise DataError(
                f"a rating of {value} on a scale from {scale.low} to {scale.high}: correct it, or declare the scale"
            )
        ordinal = OrdinalScale(judgment.criterion, question, scale.categories)
        number = self.scales.setdefault(ordinal, len(self.scales))
        row = self.number(text), value - scale.low, number, weight
        self.steps.append((*row, KINDS.index(kind), self.who(judgment), event))

    def react(self, event: int, judgment: Dialogue) -> None:
        text = (judgment.prompt, judgment.completion)
        if judgment.evaluation is not None:
            self.rate(event, judgment, text, judgment.evaluation, REACTION, "dialogue", question="reaction")
        if judgment.rewrite is not None:
            self.correct(event, judgment, text, (judgment.prompt, judgment.rewrite), "dialogue")
        if judgment.evaluation is None and judgment.rewrite is None:
            self.unused["no reaction"] += 1

    def add_marks(self, feedback: Sequence[Feedback]) -> None:
        """All marks of one person on one text are one judgment: a thumb down (or up) as strong as their sum."""
        sums: dict[tuple[Text, str | None, str], float] = {}
        first_event: dict[tuple[Text, str | None, str], int] = {}
        for event, judgment in enumerate(feedback):
            if isinstance(judgment, Span | Live):
                key = ((judgment.prompt, judgment.completion), judgment.annotator, judgment.criterion)
                value = judgment.severity if isinstance(judgment, Span) else float(judgment.value)
                sums[key] = sums.get(key, 0.0) + value
                first_event.setdefault(key, event)
        for key, total in sums.items():
            event, weight = first_event[key], min(1.0, abs(total))
            if weight:
                self.rate(event, feedback[event], key[0], int(total > 0), THUMB, "rating", weight=weight)
            else:
                self.unused["marks that cancel"] += 1

    def number(self, text: Text) -> int:
        return self.texts.setdefault(text, len(self.texts))

    def who(self, judgment: Feedback) -> int:
        return self.annotators.setdefault(judgment.annotator or "", len(self.annotators))

    def finish(self, events: int) -> Evidence:
        if not (self.pairs or self.steps or self.orders):
            raise DataError(
                f"{events} pieces of feedback say nothing about which texts are better "
                f"({dict(self.unused) or 'there are none'}): give ratings, choices, rankings or corrections"
            )
        return Evidence(
            texts=tuple(self.texts),
            scales=tuple(self.scales),
            annotators=tuple(self.annotators),
            events=events,
            comparisons=self._comparisons(),
            ordinals=self._ordinals(),
            rankings=self._rankings(),
            ties_offered=any(row[2] == TIE for row in self.pairs),
            both_bad_offered=any(row[2] == BOTH_BAD for row in self.pairs),
            unused=dict(self.unused),
        )

    def _comparisons(self) -> Comparisons:
        columns = list(zip(*self.pairs, strict=True)) or [()] * 7
        first, second, choice, margin, kind, annotator, event = columns
        return Comparisons(
            texts_E2=np.array([first, second], dtype=np.int64).T.reshape(-1, 2),
            choice_E=_integers(choice),
            margin_E=np.array(margin, dtype=np.float64),
            kind_E=_integers(kind),
            annotator_E=_integers(annotator),
            event_E=_integers(event),
        )

    def _ordinals(self) -> Ordinals:
        columns = list(zip(*self.steps, strict=True)) or [()] * 7
        text, category, scale, weight, kind, annotator, event = columns
        return Ordinals(
            text_E=_integers(text),
            category_E=_integers(category),
            scale_E=_integers(scale),
            weight_E=np.array(weight, dtype=np.float64),
            kind_E=_integers(kind),
            annotator_E=_integers(annotator),
            event_E=_integers(event),
        )

    def _rankings(self) -> Rankings:
        width = max((len(texts) for texts, *_ in self.orders), default=0)
        return Rankings(
            texts_EK=np.array([t + [-1] * (width - len(t)) for t, *_ in self.orders], dtype=np.int64).reshape(
                len(self.orders), width
            ),
            ranks_EK=np.array(
                [[*ranks, *[0] * (width - len(ranks))] for _, ranks, *_ in self.orders], dtype=np.int64
            ).reshape(len(self.orders), width),
            annotator_E=_integers([row[2] for row in self.orders]),
            event_E=_integers([row[3] for row in self.orders]),
        )


def _integers(values: Sequence[int]) -> np.ndarray:
    return np.array(values, dtype=np.int64)
