"""Whether a reward's probabilities are true, and how sure its accuracy is."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

BINS = 15
RESAMPLES = 1000


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float


def calibration_error(probability_B: np.ndarray, happened_B: np.ndarray, bins: int = BINS) -> float:
    """Expected calibration error: mean |share that happened - mean probability| over bins of equal mass, 0 to 1.

    Equal mass (Nixon 2019, 1904.01685) because rewards crowd around one half, where equal widths leave bins empty.
    """
    order = np.argsort(probability_B, kind="stable")
    parts = [part for part in np.array_split(order, min(bins, len(order))) if len(part)]
    gaps = [abs(float(happened_B[part].mean() - probability_B[part].mean())) * len(part) for part in parts]
    return sum(gaps) / len(order) if parts else float("nan")


def calibration_floor(probability_B: np.ndarray, seed: int = 0, bins: int = BINS, draws: int = 200) -> float:
    """The mean calibration error that a perfectly calibrated model would show with these probabilities.

    With few pairs it is far from 0, and an error near it is no fault of the model.
    """
    rng = np.random.default_rng(seed)
    happened_RB = rng.random((draws, len(probability_B))) < probability_B
    return float(np.mean([calibration_error(probability_B, happened_B, bins) for happened_B in happened_RB]))


def fit_sharpness(logits_B: np.ndarray, happened_B: np.ndarray) -> float:
    """1 / temperature: the factor on the logits, from 0.01 to 100, under which what happened is most likely."""
    signed_B = np.where(happened_B, logits_B, -logits_B)

    def nll(log_factor: float) -> float:
        return float(np.logaddexp(0, -np.exp(log_factor) * signed_B).mean())

    low, high = -np.log(100), np.log(100)
    for _ in range(60):  # the likelihood has one peak: the third in which it is not is cut off
        left, right = low + (high - low) / 3, high - (high - low) / 3
        low, high = (low, right) if nll(left) <= nll(right) else (left, high)
    return float(np.exp((low + high) / 2))


def estimate_mean(values_B: np.ndarray, clusters: Sequence[Hashable], seed: int = 0) -> Estimate:
    """Mean with a bootstrap interval over clusters: judgments of one prompt are not independent."""
    names = {name: number for number, name in enumerate(dict.fromkeys(clusters))}
    member_B = np.array([names[name] for name in clusters], dtype=np.int64)
    sums_C = np.bincount(member_B, weights=values_B, minlength=len(names))
    counts_C = np.bincount(member_B, minlength=len(names))
    rng = np.random.default_rng(seed)
    drawn_RC = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=RESAMPLES)
    means_R = drawn_RC @ sums_C / (drawn_RC @ counts_C)
    low, high = np.quantile(means_R, [0.025, 0.975])
    return Estimate(float(np.mean(values_B)), float(low), float(high))
