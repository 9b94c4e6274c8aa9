"""A reward learned from people: a scorer with one or more heads, standardized, calibrated, stamped with a version."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np

from rewardloop.errors import ConfigError, TrainingError
from rewardloop.types import Prompt

if TYPE_CHECKING:
    from torch import Tensor

FEWEST_REFERENCE_SCORES = 16
UNCERTAINTY_WEIGHT = 0.5  # UWO of 2310.02743: mean - 0.5 variance of the heads


class Scorer(Protocol):
    """Raw scores in logits, one row for each head; row 0 is the best estimate, the rest are the ensemble."""

    @property
    def digest(self) -> str:
        """Changes whenever a raw score would."""

    def raw_scores(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> np.ndarray:
        """float64 array [H, B]."""


class Extractor(Protocol):
    """Features of finished answers, from a trunk that is never trained."""

    @property
    def digest(self) -> str:
        """Changes whenever a feature would."""

    @property
    def summaries(self) -> int:
        """How many of the last columns sum up a text, each as telling as all the others together may be."""

    def features(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> Tensor:
        """float32 features_BD on the CPU."""


@dataclass(frozen=True, slots=True)
class AnnotatorTraits:
    """What a fit found about one person (reward/annotators.py)."""

    severity: float  # above 0 withholds stars, in logits; 0 is the mean of those who rate
    discrimination: float  # kappa: 1 is ordinary, 0 guesses, below 0 says the opposite
    lapse: float  # share of judgments given without reading, in (0, 1)
    side_bias: float  # above 0 leans to the text shown first, in logits
    weight: float  # in [0, 1]: 0 guesses or says the opposite, 1 an ordinary person who never lapses
    judgments: int  # that this rests on; with few, all is near the prior


@dataclass(frozen=True, eq=False)
class RewardModel:
    """R(x, y) = (best - uncertainty_weight * variance of the ensemble - offset) / scale. A RewardSource.

    Differences of `best`, times `sharpness`, are the logits of a choice between two texts.
    """

    scorer: Scorer
    offset: float = 0.0
    scale: float = 1.0
    sharpness: float = 1.0  # 1 / temperature
    length_slope: float = 0.0  # how length sways people: logits for each unit of log-length; never in the score
    uncertainty_weight: float = UNCERTAINTY_WEIGHT
    annotators: Mapping[str, AnnotatorTraits] = field(default_factory=dict)  # by name; not written by save_reward

    @property
    def version(self) -> str:
        parts = (self.scorer.digest, self.offset, self.scale, self.uncertainty_weight)
        return "r-" + hashlib.sha256(repr(parts).encode()).hexdigest()[:12]

    def score(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> np.ndarray:
        """float64 array of B standardized rewards. Raises TrainingError where one is not finite."""
        raw_HB = self._raw(prompts, completions)
        pessimism_B = self.uncertainty_weight * raw_HB[1:].var(axis=0) if len(raw_HB) > 2 else 0.0
        return np.asarray((raw_HB[0] - pessimism_B - self.offset) / self.scale)

    def disagreement(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> np.ndarray:
        """Standard deviation of the ensemble in units of the standardized reward, one for each text.

        Raises ConfigError for a model without an ensemble.
        """
        raw_HB = self._raw(prompts, completions)
        if len(raw_HB) < 3:
            raise ConfigError(
                "this reward model has a single head and cannot disagree with itself; fit 2 or more heads"
            )
        return np.asarray(raw_HB[1:].std(axis=0) / self.scale)

    def choice_logits(
        self,
        prompts: Sequence[Prompt],
        firsts: Sequence[str],
        seconds: Sequence[str],
        *,
        swayed_by_length: bool = False,
    ) -> np.ndarray:
        """log-odds that people prefer the first text, calibrated where a calibration was fitted.

        `swayed_by_length` adds what people give for length alone: it foresees them better, and is no reward.
        """
        raw_2B = self._raw([*prompts, *prompts], [*firsts, *seconds])[0].reshape(2, -1)
        sway_B = self.length_slope * (log_lengths(firsts) - log_lengths(seconds)) if swayed_by_length else 0.0
        return np.asarray(self.sharpness * (raw_2B[0] - raw_2B[1] + sway_B))

    def sharpen(self, factor: float) -> RewardModel:
        """The same reward, its probabilities of choices with `factor` times the log-odds (a temperature refit)."""
        return replace(self, sharpness=self.sharpness * factor)

    def standardize(self, reference_scores: np.ndarray) -> RewardModel:
        """The same reward with mean 0 and variance 1 on the reference policy's completions.

        `reference_scores`: what `score` gave for at least 16 of them (512 or more for a steady beta). beta means
        nothing across reward versions without this. Raises TrainingError when they do not vary.
        """
        scores = np.asarray(reference_scores, dtype=np.float64)
        if scores.size < FEWEST_REFERENCE_SCORES:
            raise ConfigError(
                f"{scores.size} reference scores are too few to standardize a reward; give "
                f"{FEWEST_REFERENCE_SCORES} or more, best 512"
            )
        mean, deviation = float(scores.mean()), float(scores.std())
        if not np.isfinite(deviation) or deviation < 1e-12:
            raise TrainingError(
                f"the reward is the same or not finite on all {scores.size} reference completions "
                f"(standard deviation {deviation}): there is nothing to learn from it; "
                "give more, or more varied, feedback"
            )
        return replace(self, offset=self.offset + mean * self.scale, scale=self.scale * deviation)

    def _raw(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> np.ndarray:
        raw_HB = self.scorer.raw_scores(prompts, completions)
        if not np.isfinite(raw_HB).all():
            number = int(np.flatnonzero(~np.isfinite(raw_HB).all(axis=0))[0])
            raise TrainingError(f"the reward of completion {number} is not finite: {completions[number][:80]!r}")
        return raw_HB


def log_lengths(completions: Sequence[str]) -> np.ndarray:
    """Log of 1 + characters."""
    return np.log1p([float(len(text)) for text in completions])
