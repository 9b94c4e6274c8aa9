"""How good a reward is on judgments it has not seen, always beside two baselines that know nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rewardloop.errors import DataError
from rewardloop.feedback.pairs import DecidedPairs, annotator_agreement, decided_pairs
from rewardloop.reward.baselines import BagOfWords, longer_wins
from rewardloop.reward.calibration import (
    Estimate,
    calibration_error,
    calibration_floor,
    estimate_mean,
    fit_sharpness,
)
from rewardloop.reward.fitting import fit_head
from rewardloop.reward.model import RewardModel
from rewardloop.types import Feedback

FEWEST_TO_CALIBRATE = 20


@dataclass(frozen=True, slots=True)
class Judge:
    """One row of the table: how a judge orders held-out pairs, and how true its probabilities are."""

    name: str
    accuracy: Estimate  # share of pairs, equal scores count one half; interval by prompt
    calibration_error: float | None  # None: the judge gives no probabilities
    calibration_floor: float | None  # what a perfectly calibrated judge would show on as many pairs


@dataclass(frozen=True, slots=True)
class RewardFit:
    """What training came to, on held-out prompts."""

    pairs: int
    judges: tuple[Judge, ...]  # the reward; the same with the sway of length; bag of words, too; longer wins
    agreement: float | None  # of two people about the same pair; None where no two judged one
    meetings: int

    @property
    def model(self) -> Judge:
        return self.judges[0]


def measure_reward(
    model: RewardModel,
    train: Sequence[Feedback],
    calibration: Sequence[Feedback],
    held_out: Sequence[Feedback],
    *,
    seed: int = 0,
) -> tuple[RewardModel, RewardFit]:
    """The model with its temperature refitted on `calibration`, and its figures on `held_out`.

    People like long answers, and a reward must not: so the reward stands beside the same model with the length put
    back, which foresees people as well as it can. The bag of words is fitted to `train` and calibrated in the same way.
    Raises DataError when no held-out judgment decides between two texts.
    """
    pairs = decided_pairs(held_out, seed)
    if not len(pairs):
        raise DataError("the held-out judgments decide no pair of texts: hold out more, or give more feedback")
    to_calibrate = decided_pairs(calibration, seed)
    words = fit_head(train, BagOfWords(train), heads=0, seed=seed)
    model = calibrate(model, to_calibrate)
    foresight = choice_logits(calibrate(model, to_calibrate, swayed=True), pairs, swayed=True)
    bag = choice_logits(calibrate(words, to_calibrate, swayed=True), pairs, swayed=True)
    judges = (
        _judge("reward model", choice_logits(model, pairs), pairs, probabilities=True),
        _judge("reward model + length", foresight, pairs, probabilities=True),
        _judge("bag of words + length", bag, pairs, probabilities=True),
        _judge("longer wins", longer_wins(pairs.firsts, pairs.seconds), pairs, probabilities=False),
    )
    agreement, meetings = annotator_agreement(held_out) or (None, 0)
    return model, RewardFit(len(pairs), judges, agreement, meetings)


def calibrate(model: RewardModel, pairs: DecidedPairs, *, swayed: bool = False) -> RewardModel:
    """The same reward with probabilities that fit pairs it has not seen; as it is where there are under 20."""
    if len(pairs) < FEWEST_TO_CALIBRATE:
        return model
    return model.sharpen(fit_sharpness(choice_logits(model, pairs, swayed=swayed), pairs.first_won_B))


def choice_logits(model: RewardModel, pairs: DecidedPairs, *, swayed: bool = False) -> np.ndarray:
    """The model's log-odds for the first text of each pair; `swayed`: with what people give for length."""
    return model.choice_logits(pairs.prompts, pairs.firsts, pairs.seconds, swayed_by_length=swayed)


def _judge(name: str, logits_B: np.ndarray, pairs: DecidedPairs, *, probabilities: bool) -> Judge:
    right_B = np.where(logits_B == 0, 0.5, (logits_B > 0) == pairs.first_won_B)
    accuracy = estimate_mean(right_B, pairs.clusters)
    if not probabilities:
        return Judge(name, accuracy, None, None)
    # how sure it is of the text it prefers: which text stood first means nothing
    confidence_B = 1 / (1 + np.exp(-np.abs(logits_B)))
    error = calibration_error(confidence_B, right_B)
    return Judge(name, accuracy, error, calibration_floor(confidence_B))
