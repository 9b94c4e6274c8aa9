"""What an answer would teach: expected information about rewards through the channel of the person who answers.

BALD (Houlsby et al. 2011, arXiv 1112.5745): H(mean P) - mean H(P) over what the rewards may be, in nats. A question
near 1/2 because its texts are equal teaches nothing; one near 1/2 because nobody knows teaches most.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import entr, expit

from rewardloop.feedback.channel import REWARD_SD
from rewardloop.feedback.evidence import Text
from rewardloop.feedback.reliability import ChannelFit

_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(21)
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()


@dataclass(frozen=True, slots=True)
class Reader:
    """The numbers of the person who would answer."""

    discrimination: float = 1.0
    lapse: float = 0.1
    side_bias: float = 0.0

    @staticmethod
    def of(fit: ChannelFit, annotator: str) -> Reader:
        """As fitted; ordinary for somebody new."""
        if annotator not in fit.annotators:
            return Reader()
        a = fit.annotators.index(annotator)
        return Reader(float(fit.discrimination_A[a]), float(fit.lapse_A[a]), float(fit.side_bias_A[a]))


def compute_information(mean_P: np.ndarray, variance_P: np.ndarray, reader: Reader) -> np.ndarray:
    """Nats that a choice is expected to tell about the gap of two rewards, ~ N(mean, variance), for P pairs.

    The mean over both sides on which a text may be shown.
    """
    gaps_PG = mean_P[:, None] + np.sqrt(np.maximum(variance_P, 0))[:, None] * _NODES
    by_side = [_probability(gaps_PG, reader, side) for side in (1, -1)]
    return np.asarray(np.mean([_entropy(p_PG @ _WEIGHTS) - _entropy(p_PG) @ _WEIGHTS for p_PG in by_side], axis=0))


def choose_questions(
    mean_N: np.ndarray, covariance_NN: np.ndarray, pairs_P2: np.ndarray, count: int, reader: Reader
) -> list[int]:
    """Rows of `pairs_P2` to ask next, the most telling first: greedy, after each as if it had been answered.

    The covariance falls by the Fisher information of the question (a rank-one update), so that the next question is
    about something else.
    """
    i, j = pairs_P2[:, 0], pairs_P2[:, 1]
    mean_P, covariance, chosen = mean_N[i] - mean_N[j], covariance_NN.copy(), list[int]()
    left = np.ones(len(pairs_P2), dtype=bool)
    for _ in range(min(count, len(pairs_P2))):
        variance_P = covariance[i, i] + covariance[j, j] - 2 * covariance[i, j]
        information = np.where(left, compute_information(mean_P, variance_P, reader), -np.inf)
        best = int(information.argmax())
        chosen.append(best)
        left[best] = False
        covariance = _answered(covariance, i[best], j[best], mean_P[best], variance_P[best], reader)
    return chosen


def inform_pairs(fit: ChannelFit, pairs: Sequence[tuple[Text, Text]], reader: Reader) -> np.ndarray:
    """Nats of asking about each pair of texts; texts that `fit` has not seen are as its prior has them."""
    numbers = {text: number for number, text in enumerate(fit.texts)}
    known = sorted({numbers[text] for pair in pairs for text in pair if text in numbers})
    place = {number: row for row, number in enumerate(known)}
    covariance_KK = fit.covariance(known) if known else np.zeros((0, 0))
    mean_P, variance_P, usual = np.zeros(len(pairs)), np.zeros(len(pairs)), float(fit.rewards_N.mean())
    for row, pair in enumerate(pairs):
        at = [place.get(numbers.get(text, -1)) for text in pair]
        for side, sign in zip(at, (1, -1), strict=True):
            mean_P[row] += sign * (usual if side is None else fit.rewards_N[known[side]])
            variance_P[row] += REWARD_SD**2 if side is None else covariance_KK[side, side]
        if at[0] is not None and at[1] is not None:
            variance_P[row] -= 2 * covariance_KK[at[0], at[1]]
    return compute_information(mean_P, variance_P, reader)


def value_reader(reader: Reader, cost: float = 1.0) -> float:
    """What a person's answer is worth for its cost: kappa^2 (1 - lapse)^2 / cost. Whom to ask is who has most.

    It is the information of a choice between two nearly equal texts; an adversary's answer, read as one, is worth as
    much as an honest one, so whoever wants to rule them out excludes them first.
    """
    return reader.discrimination**2 * (1 - reader.lapse) ** 2 / cost


def _answered(covariance_NN: np.ndarray, i: int, j: int, mean: float, variance: float, reader: Reader) -> np.ndarray:
    gaps = mean + np.sqrt(max(variance, 0.0)) * _NODES
    read, p = expit(reader.discrimination * gaps + reader.side_bias), _probability(gaps, reader, 1)
    slope = (1 - reader.lapse) * reader.discrimination * read * (1 - read)
    fisher = float((slope**2 / np.maximum(p * (1 - p), 1e-12)) @ _WEIGHTS)
    direction = covariance_NN[:, i] - covariance_NN[:, j]
    return np.asarray(covariance_NN - np.outer(direction, direction) * fisher / (1 + fisher * variance))


def _probability(gap: np.ndarray, reader: Reader, side: int) -> np.ndarray:
    read = expit(reader.discrimination * gap + side * reader.side_bias)
    return np.asarray((1 - reader.lapse) * read + reader.lapse / 2)


def _entropy(p: np.ndarray) -> np.ndarray:
    return np.asarray(entr(p) + entr(1 - p))
