"""Simulated choices of people of known character between items of known worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rewardloop.types import Preference


@dataclass(frozen=True)
class Person:
    name: str
    kappa: float = 1.0
    lapse: float = 0.0
    side: float = 0.0

    def choose(self, rng: np.random.Generator, truth: np.ndarray, i: int, j: int) -> Preference:
        read = 1 / (1 + np.exp(-(self.kappa * (truth[i] - truth[j]) + self.side)))
        first = rng.random() < (1 - self.lapse) * read + self.lapse / 2
        return Preference(
            prompt="p", first=str(i), second=str(j), choice="first" if first else "second", annotator=self.name
        )


def ask(rng: np.random.Generator, truth: np.ndarray, people: Sequence[Person], each: int) -> list[Preference]:
    """`each` choices of every person, pairs at random."""
    found = []
    for person in people:
        for _ in range(each):
            i, j = rng.choice(len(truth), 2, replace=False)
            found.append(person.choose(rng, truth, int(i), int(j)))
    return found


def kendall_tau(x: np.ndarray, y: np.ndarray) -> float:
    i, j = np.triu_indices(len(x), 1)
    return float(np.mean(np.sign(x[i] - x[j]) * np.sign(y[i] - y[j])))
