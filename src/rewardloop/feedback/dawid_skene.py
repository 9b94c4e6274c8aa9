"""Labels of unreliable people: the likely truth of every item and how each person confuses the classes.

Dawid and Skene (1979), by expectation-maximization. T is the belief about the truth, pi how frequent the classes are,
C[a, k, l] the probability that person a says l where k is true:

    expect      T[i, k] ~ pi[k] prod over answers (a, l) of item i: C[a, k, l]
    maximize    C[a, k, l] ~ sum over answers l of a: T[i, k] + 1/K;    pi[k] ~ sum over i: T[i, k]

The 1/K is a Dirichlet(1 + 1/K) prior on every row of C, so that what never rises is not the likelihood but the
posterior's density: `objective` records it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rewardloop.errors import DataError

_ITERATIONS = 200
_TOLERANCE = 1e-8  # relative rise of the objective at which it has converged


@dataclass(frozen=True, slots=True, eq=False)
class Labels:
    """E answers: person `person_E` says that item `item_E` is of class `label_E`; all count from 0."""

    item_E: np.ndarray
    person_E: np.ndarray
    label_E: np.ndarray
    items: int
    people: int
    classes: int

    def __post_init__(self) -> None:
        for name, size in (("item_E", self.items), ("person_E", self.people), ("label_E", self.classes)):
            column = getattr(self, name)
            if len(column) != len(self.item_E) or (len(column) and not 0 <= column.min() <= column.max() < size):
                raise DataError(f"{name} has {len(column)} numbers; expected {len(self.item_E)}, each in 0..{size - 1}")


@dataclass(frozen=True, slots=True, eq=False)
class LabelFit:
    """What the labels say; I items, A people, K classes."""

    belief_IK: np.ndarray  # probability of every class
    confusion_AKK: np.ndarray  # [a, true, said]
    prior_K: np.ndarray
    objective: tuple[float, ...]  # log posterior density after every iteration, up to a constant

    @property
    def truth(self) -> np.ndarray:
        """The likeliest class of each of I items."""
        return np.asarray(self.belief_IK.argmax(1))

    @property
    def weights(self) -> np.ndarray:
        """How far above guessing each of A people is, 0 to 1: (P(right) - 1/K) / (1 - 1/K), classes counting alike.

        A person who always says the most frequent class is often right and has weight 0.
        """
        classes = len(self.prior_K)
        right_A = self.confusion_AKK.diagonal(axis1=1, axis2=2).mean(1)
        return np.asarray(np.clip((right_A - 1 / classes) / (1 - 1 / classes), 0, 1))


def majority_belief(labels: Labels) -> np.ndarray:
    """Share of the votes for each class, belief_IK; even where nobody voted."""
    votes_IK = np.zeros((labels.items, labels.classes))
    np.add.at(votes_IK, (labels.item_E, labels.label_E), 1)
    silent = votes_IK.sum(1) == 0
    votes_IK[silent] = 1
    return np.asarray(votes_IK / votes_IK.sum(1, keepdims=True))


def fit_labels(labels: Labels, start: LabelFit | None = None) -> LabelFit:
    """Fit by EM from the majority's belief, or from an earlier fit of the same people (then it takes few steps)."""
    if start is None:
        confusion_AKK, prior_K = _maximize(labels, majority_belief(labels))
    else:
        confusion_AKK, prior_K = start.confusion_AKK, start.prior_K
    objective: list[float] = []
    belief_IK = np.empty((labels.items, labels.classes))
    for _ in range(_ITERATIONS):
        belief_IK, likelihood = _expect(labels, confusion_AKK, prior_K)
        objective.append(likelihood + float(np.log(confusion_AKK).sum()) / labels.classes)
        if len(objective) > 1 and objective[-1] - objective[-2] <= _TOLERANCE * abs(objective[-1]):
            break
        confusion_AKK, prior_K = _maximize(labels, belief_IK)
    return LabelFit(belief_IK, confusion_AKK, prior_K, tuple(objective))


def _expect(labels: Labels, confusion_AKK: np.ndarray, prior_K: np.ndarray) -> tuple[np.ndarray, float]:
    """belief_IK and the log-likelihood."""
    log_IK = np.tile(np.log(np.maximum(prior_K, 1e-300)), (labels.items, 1))
    np.add.at(log_IK, labels.item_E, np.log(confusion_AKK)[labels.person_E, :, labels.label_E])
    total_I1 = np.logaddexp.reduce(log_IK, axis=1, keepdims=True)
    return np.exp(log_IK - total_I1), float(total_I1.sum())


def _maximize(labels: Labels, belief_IK: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """confusion_AKK and prior_K."""
    shape = labels.people, labels.classes, labels.classes  # [a, said, true], turned below
    counts_AKK = np.full(shape, 1 / labels.classes)
    np.add.at(counts_AKK, (labels.person_E, labels.label_E), belief_IK[labels.item_E])
    confusion_AKK = counts_AKK.transpose(0, 2, 1)
    return confusion_AKK / confusion_AKK.sum(2, keepdims=True), belief_IK.mean(0)
