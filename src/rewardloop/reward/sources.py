"""Reward sources that are not learned, and sums of sources."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from rewardloop.errors import ConfigError, TrainingError
from rewardloop.types import Prompt, RewardSource


@dataclass(frozen=True, slots=True)
class Rule:
    """A reward by rule: a function of prompt and completion, under a name that changes when the rule does."""

    name: str
    function: Callable[[Prompt, str], float]

    @property
    def version(self) -> str:
        return self.name

    def score(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> np.ndarray:
        scores_B = np.array(
            [self.function(prompt, text) for prompt, text in zip(prompts, completions, strict=True)],
            dtype=np.float64,
        )
        return _finite(scores_B, self.name, completions)


def repetition_rule(size: int = 3) -> Rule:
    """Minus the share of repeated runs of `size` words: 0 for a text that never repeats itself, near -1 for a loop."""

    def function(prompt: Prompt, completion: str) -> float:
        words = completion.split() if " " in completion else list(completion)
        runs = [tuple(words[at : at + size]) for at in range(len(words) - size + 1)]
        return len(set(runs)) / len(runs) - 1 if runs else 0.0

    return Rule(f"repetition-{size}", function)


def length_rule(low: int, high: int) -> Rule:
    """0 for a completion of `low` to `high` characters, minus the relative excess or lack outside."""
    if not 0 <= low <= high:
        raise ConfigError(f"a length from {low} to {high} characters: expected 0 <= low <= high")

    def function(prompt: Prompt, completion: str) -> float:
        length = len(completion)
        return -max(low - length, 0) / max(low, 1) - max(length - high, 0) / max(high, 1)

    return Rule(f"length-{low}-{high}", function)


def phrase_rule(phrases: Sequence[str]) -> Rule:
    """-1 for each of `phrases` that occurs in the completion, in any case."""
    folded = tuple(phrase.casefold() for phrase in phrases)

    def function(prompt: Prompt, completion: str) -> float:
        text = completion.casefold()
        return -float(sum(phrase in text for phrase in folded))

    return Rule(f"phrases-{_digest(*folded)}", function)


@dataclass(frozen=True)
class WeightedSum:
    """sum_k w_k R_k. A potential for it is the sum of the potentials with the same weights."""

    parts: tuple[tuple[float, RewardSource], ...]

    def __post_init__(self) -> None:
        if not self.parts or not all(np.isfinite(weight) for weight, _ in self.parts):
            raise ConfigError("a weighted sum needs one source or more, with finite weights")

    @property
    def version(self) -> str:
        return "sum-" + _digest(*(f"{weight!r}*{source.version}" for weight, source in self.parts))

    def score(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> np.ndarray:
        return np.asarray(sum(weight * source.score(prompts, completions) for weight, source in self.parts))


@dataclass(frozen=True)
class Saturated:
    """log sigma(R - threshold): once good enough, more of one quality does not make up for another (2402.00742).

    `threshold`: the 85 % quantile of the reference's scores. Apply it to each part before a WeightedSum.
    """

    source: RewardSource
    threshold: float

    @property
    def version(self) -> str:
        return f"saturated-{_digest(self.source.version, repr(self.threshold))}"

    def score(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> np.ndarray:
        return np.asarray(-np.logaddexp(0, self.threshold - self.source.score(prompts, completions)))


def _finite(scores_B: np.ndarray, name: str, completions: Sequence[str]) -> np.ndarray:
    bad = np.flatnonzero(~np.isfinite(scores_B))
    if len(bad):
        raise TrainingError(f"rule {name} gave {scores_B[bad[0]]} for {completions[bad[0]][:80]!r}; expected a number")
    return scores_B


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]
