"""A reward that learns from new feedback only where it then foresees people better.

A refit is accepted if it predicts new judgments that it was not fitted to no worse than the version before, and old
ones hardly worse: within 1 %, each up to two standard errors of the difference. So a fit gone wrong, or a reward with
its sign turned, never reaches the policy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import sqrt
from typing import Final

import numpy as np

from rewardloop.errors import DataError, TrainingError
from rewardloop.loop.rewards import LearnedReward
from rewardloop.reward.model import RewardModel, log_lengths
from rewardloop.types import Dialogue, Edit, Feedback, Flag, Preference, Prompt, Ranking, Rating, Rollout

HELD_OUT: Final = 4  # of the new judgments, one in so many is predicted before it is learned from
FEWEST_HELD_OUT: Final = 3  # with fewer there is nothing to measure by
MOST_OLD: Final = 200  # old judgments, the newest, that must still be predicted
HARDLY_WORSE: Final = 0.01  # of the old ones' mean negative log-likelihood
DOUBT: Final = 2.0  # standard errors of a difference that may be chance

Text = tuple[Prompt, str]


@dataclass(frozen=True, slots=True)
class Refit:
    """What became of a refit."""

    accepted: bool
    metrics: dict[str, float]
    reason: str = ""  # of a refusal


class CarefulReward:
    """A learned reward with a guard before it. `learned` is the version in force."""

    def __init__(self, learned: LearnedReward) -> None:
        self.learned = learned

    def refit(self, old: Sequence[Feedback], new: Sequence[Feedback], pool: Rollout) -> Refit:
        """Learn from `old` and `new` judgments; `pool`: completions of the reference that set the scale."""
        held_out = list(new[HELD_OUT - 1 :: HELD_OUT])
        if len(held_out) < FEWEST_HELD_OUT:
            held_out = []
        known = [judgment for at, judgment in enumerate(new) if not held_out or at % HELD_OUT != HELD_OUT - 1]
        try:
            trial = self._fitted([*old, *known], pool)
        except (DataError, TrainingError) as error:
            return Refit(False, {}, str(error))
        metrics, reason = self._compare(trial, implied_pairs(held_out or new), implied_pairs(old[-MOST_OLD:]))
        if reason:
            return Refit(False, metrics, reason)
        try:
            self.learned = self._fitted([*old, *new], pool) if held_out else trial
        except (DataError, TrainingError) as error:
            return Refit(False, metrics, str(error))
        return Refit(True, metrics | self.learned.metrics)

    def _fitted(self, feedback: Sequence[Feedback], pool: Rollout) -> LearnedReward:
        fitted = replace(self.learned, metrics={})
        fitted.refit(list(feedback), pool)
        return fitted

    def _compare(
        self, trial: LearnedReward, new: Sequence[tuple[Text, Text]], old: Sequence[tuple[Text, Text]]
    ) -> tuple[dict[str, float], str]:
        """Figures, and the reason of a refusal ("" for none)."""
        assert trial.source is not None
        metrics: dict[str, float] = {}
        if new:
            after_N, before_N = surprise(trial.source, new), surprise(self.learned.source, new)
            metrics |= {"reward/new_nll": float(after_N.mean()), "reward/new_nll_before": float(before_N.mean())}
            worse_N = after_N - before_N
            if worse_N.mean() > DOUBT * _error(worse_N):
                return metrics, "it foresees the new judgments worse than the version before"
        if old and self.learned.source is not None:
            after_N, before_N = surprise(trial.source, old), surprise(self.learned.source, old)
            metrics |= {"reward/old_nll": float(after_N.mean()), "reward/old_nll_before": float(before_N.mean())}
            worse_N = after_N - before_N
            if worse_N.mean() > HARDLY_WORSE * before_N.mean() + DOUBT * _error(worse_N):
                return metrics, "it forgets what people said before"
        return metrics, ""


def implied_pairs(feedback: Sequence[Feedback]) -> list[tuple[Text, Text]]:
    """(better, worse) for every comparison that the judgments imply, each text with its prompt.

    Ratings of one person on one scale are compared with the one before them, where they differ.
    """
    pairs: list[tuple[Text, Text]] = []
    last: dict[object, tuple[Text, float]] = {}
    for judgment in feedback:
        match judgment:
            case Preference(choice="first" | "second"):
                texts = (judgment.prompt, judgment.first), (judgment.prompt, judgment.second)
                pairs.append(texts if judgment.choice == "first" else (texts[1], texts[0]))
            case Edit(completion=completion, corrected=corrected) if completion != corrected:
                pairs.append(((judgment.prompt, corrected), (judgment.prompt, completion)))
            case Dialogue(rewrite=str(rewrite)) if rewrite != judgment.completion:
                pairs.append(((judgment.prompt, rewrite), (judgment.prompt, judgment.completion)))
            case Ranking(completions=completions, ranks=ranks):
                order = sorted(range(len(ranks)), key=ranks.__getitem__)
                pairs += [
                    ((judgment.prompt, completions[a]), (judgment.prompt, completions[b]))
                    for a, b in pairwise(order)
                    if ranks[a] < ranks[b]
                ]
            case Rating(completion=completion, value=value, scale=scale):
                pairs += _against_last(last, (judgment.annotator, scale), (judgment.prompt, completion), value)
            case Flag(completion=completion):
                pairs += _against_last(last, (judgment.annotator, "flag"), (judgment.prompt, completion), -1)
    return pairs


def surprise(source: RewardModel | None, pairs: Sequence[tuple[Text, Text]]) -> np.ndarray:
    """-log P(better wins) of every pair, float64; log 2 without a reward."""
    if source is None:
        return np.full(len(pairs), np.log(2.0))
    better, worse = ([pair[side] for pair in pairs] for side in (0, 1))
    gap_N = (_scores(source, better) - _scores(source, worse)) * source.scale
    sway_N = source.length_slope * (log_lengths([t for _, t in better]) - log_lengths([t for _, t in worse]))
    surprise_N: np.ndarray = np.logaddexp(0.0, -source.sharpness * (gap_N + sway_N))
    return surprise_N


def _scores(source: RewardModel, texts: Sequence[Text]) -> np.ndarray:
    return source.score([prompt for prompt, _ in texts], [text for _, text in texts])


def _against_last(
    last: dict[object, tuple[Text, float]], key: object, text: Text, value: float
) -> list[tuple[Text, Text]]:
    before = last.get(key)
    last[key] = (text, value)
    if before is None or before[1] == value or before[0] == text:
        return []
    return [(text, before[0]) if value > before[1] else (before[0], text)]


def _error(values_N: np.ndarray) -> float:
    """Standard error of the mean; of a single value, its size."""
    if len(values_N) < 2:
        return float(np.abs(values_N).max(initial=0.0)) / 2
    return float(values_N.std(ddof=1)) / sqrt(len(values_N))
