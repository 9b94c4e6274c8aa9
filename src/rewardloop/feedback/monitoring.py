"""Signs that somebody does not read, guesses, or has changed: from gold items, runs, and surprises.

These are signs for people to look at. What follows from them, reversibly, is in exclusions.py.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

import numpy as np
from scipy.special import betaincc, expit

from rewardloop.feedback.reliability import ChannelFit
from rewardloop.types import Feedback, Preference, Rating

GOLD_PRIOR = (4.0, 1.0)  # Beta: people are taken to be right in four of five
GOLD_ACCURACY, GOLD_DOUBT, GOLD_MINIMUM = 0.7, 0.05, 10
GUESSING, GOOD, ERROR = 0.5, 0.8, 0.05  # accuracies that the sequential test tells apart, and how often it may err
SPRT_BOUND = math.log((1 - ERROR) / ERROR)  # log 19
CUSUM_SLACK, CUSUM_ALARM = 0.5, 5.0  # in standard deviations
ANSWERS_PER_POINT = 10  # single answers are too far from normal for a control chart
_RUN_CHANCE = 1e-3


# ---------------------------------------------------------------- gold items


@dataclass(frozen=True, slots=True)
class GoldRecord:
    """How one person did on items whose answer is known."""

    right: int = 0
    wrong: int = 0

    @property
    def answers(self) -> int:
        return self.right + self.wrong

    @property
    def chance_good(self) -> float:
        """P(accuracy > .7) given the answers, from a Beta(4, 1) prior."""
        return float(betaincc(GOLD_PRIOR[0] + self.right, GOLD_PRIOR[1] + self.wrong, GOLD_ACCURACY))

    @property
    def failed(self) -> bool:
        """After at least ten gold items, an accuracy above .7 has less than 5 % chance."""
        return self.answers >= GOLD_MINIMUM and self.chance_good < GOLD_DOUBT


def decide_sequentially(right: Sequence[bool]) -> Literal["good", "guessing"] | None:
    """Wald's (1945) sequential test of accuracy .8 against .5: the first decision stands; None: not decided yet.

    Of people who are right in .8 (or more), at most 5 % are ever called guessing, however often one looks.
    """
    evidence = 0.0
    for was_right in right:
        evidence += math.log(GOOD / GUESSING) if was_right else math.log((1 - GOOD) / (1 - GUESSING))
        if abs(evidence) >= SPRT_BOUND:
            return "good" if evidence > 0 else "guessing"
    return None


# ---------------------------------------------------------------- the same answer again and again


@dataclass(frozen=True, slots=True)
class StraightLine:
    """The least likely run of equal answers (the same side, the same step) that one person gave in a row."""

    annotator: str
    question: str  # "preference", "rating 1-5"
    answer: str
    length: int
    chance: float  # bound on the chance of such a run somewhere, if they answered as all people together do

    @property
    def suspicious(self) -> bool:
        return self.chance < _RUN_CHANCE


def find_straight_lines(feedback: Sequence[Feedback]) -> tuple[StraightLine, ...]:
    """The least likely run of every named person, judgments in the order given; least likely first.

    A run of n equal answers, each with share p among the other people's answers, occurs in N answers with a chance
    of at most (N - n + 1) p^n. With nobody else to compare with, the steps are taken to be equally frequent.
    """
    said: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    options: dict[str, int] = {}
    for judgment in feedback:
        if judgment.annotator and isinstance(judgment, Preference | Rating):
            question, answer, count = _shown_answer(judgment)
            said[question][judgment.annotator].append(answer)
            options[question] = count
    lines: dict[str, StraightLine] = {}
    for question, people in said.items():
        everybody = [answer for answers in people.values() for answer in answers]
        for name, answers in people.items():
            line = _worst_run(name, question, answers, everybody, options[question])
            if name not in lines or line.chance < lines[name].chance:
                lines[name] = line
    return tuple(sorted(lines.values(), key=lambda line: (line.chance, line.annotator)))


def _shown_answer(judgment: Preference | Rating) -> tuple[str, str, int]:
    if isinstance(judgment, Preference):
        return "preference", judgment.choice, 2
    return f"rating {judgment.scale.low}-{judgment.scale.high}", str(judgment.value), judgment.scale.categories


def _worst_run(name: str, question: str, answers: list[str], everybody: list[str], options: int) -> StraightLine:
    runs: dict[str, int] = {}
    for answer, run in groupby(answers):
        runs[answer] = max(runs.get(answer, 0), len(list(run)))

    def chance(answer: str) -> float:
        others = len(everybody) - len(answers)
        share = (everybody.count(answer) - answers.count(answer) + 1) / (others + options)
        return float(min(1.0, (len(answers) - runs[answer] + 1) * share ** runs[answer]))

    worst = min(runs, key=chance)
    return StraightLine(name, question, worst, runs[worst], chance(worst))


# ---------------------------------------------------------------- drift


@dataclass(frozen=True, slots=True)
class Drift:
    """A two-sided control chart of one person's surprises."""

    points: int
    alarm: int | None  # the point at which it first left its bounds
    direction: Literal["better", "worse"] | None


def detect_drift(points: Sequence[float]) -> Drift:
    """Page's (1954) CUSUM, slack .5 and alarm at 5 standard deviations, of points that should be N(0, 1).

    A shift of one standard deviation is found after some ten points; without one, alarms come some 465 points apart.
    """
    up = down = 0.0
    for number, point in enumerate(points):
        up = max(0.0, up + point - CUSUM_SLACK)
        down = max(0.0, down - point - CUSUM_SLACK)
        if max(up, down) > CUSUM_ALARM:
            return Drift(len(points), number, "better" if up > down else "worse")
    return Drift(len(points), None, None)


def surprise_points(feedback: Sequence[Feedback], annotator: str, fit: ChannelFit) -> list[float]:
    """How much oftener than expected a person chose the better text, in standard deviations, ten choices a point.

    "Better" and "expected" are what `fit` says of texts and people. Ties and pairs that it does not know are left out.
    """
    numbers = {text: number for number, text in enumerate(fit.texts)}
    a = fit.annotators.index(annotator)
    found: list[tuple[float, float]] = []
    for choice in feedback:
        if not isinstance(choice, Preference) or choice.annotator != annotator:
            continue
        i, j = (numbers.get((choice.prompt, text)) for text in (choice.first, choice.second))
        if i is None or j is None or choice.choice not in ("first", "second"):
            continue
        gap = fit.rewards_N[i] - fit.rewards_N[j]
        read = float(expit(fit.discrimination_A[a] * gap + fit.side_bias_A[a]))
        p_first = (1 - fit.lapse_A[a]) * read + fit.lapse_A[a] / 2
        found.append(((choice.choice == "first") == (gap > 0), p_first if gap > 0 else 1 - p_first))
    whole = len(found) // ANSWERS_PER_POINT * ANSWERS_PER_POINT
    table = np.array(found[:whole], dtype=np.float64).reshape(-1, ANSWERS_PER_POINT, 2)
    right, expected = table[..., 0].sum(1), table[..., 1]
    return [float(point) for point in (right - expected.sum(1)) / np.sqrt((expected * (1 - expected)).sum(1))]
