"""The settings of a run: small frozen groups, each with unit, range and meaning. Twenty-four in all."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from rewardloop.errors import ConfigError
from rewardloop.optimize.policy_gradient import METHODS

AFTER_ASKING = 24  # iterations that follow the last round of questions, where the recipe says nothing else


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)


@dataclass(frozen=True, slots=True)
class Sampling:
    """How completions are drawn from the policy."""

    prompts: int = 16  # prompts per iteration, 1 or more
    group_size: int = 4  # completions per prompt, 2 or more (the siblings are the baseline)
    max_tokens: int = 64  # longest completion, tokens
    temperature: float = 1.0  # above 0; probabilities are recorded at this temperature
    slots: int = 64  # sequences decoded side by side
    compiled: bool = False  # compile what decoding does between its matrix products; needs a C++ compiler and a CPU

    def __post_init__(self) -> None:
        _require(self.prompts >= 1, "sampling.prompts must be 1 or more")
        _require(self.group_size >= 2, "sampling.group_size must be 2 or more: siblings are the baseline")
        _require(self.max_tokens >= 1, "sampling.max_tokens must be 1 or more")
        _require(self.temperature > 0, "sampling.temperature must be above 0")
        _require(self.slots >= 1, "sampling.slots must be 1 or more")


@dataclass(frozen=True, slots=True)
class Asking:
    """When people are asked, and how often."""

    events: int = 100  # feedback events in all; 0 = never ask
    per_round: int = 25  # events asked for at a time, 1 or more
    every: int = 4  # iterations between two rounds, 1 or more
    replies: Literal["mixed", "preference", "rating", "edit"] = "mixed"  # which kind of feedback is asked for

    def __post_init__(self) -> None:
        _require(self.events >= 0, "asking.events must be 0 or more")
        _require(self.per_round >= 1 and self.every >= 1, "asking.per_round and asking.every must be 1 or more")


@dataclass(frozen=True, slots=True)
class Immediate:
    """The potential phi, which spreads a reward over the tokens that earned it."""

    dense: bool = True  # False: the whole reward arrives at the last token
    decay: float = 0.9  # weight of the evidence before this batch, in (0, 1]
    missing_end_score: float | None = -1.0  # reward of a text that was cut off, reference sd; null = score it as it is

    def __post_init__(self) -> None:
        _require(0 < self.decay <= 1, "immediate.decay must be in (0, 1]")


@dataclass(frozen=True, slots=True)
class Optimizer:
    """How the policy moves."""

    method: str = "default"  # a row of the table in docs/methods.md
    lr: float | None = None  # learning rate, above 0; at the start; null = by the size of the policy, 4e-4 for 1M
    epochs: int = 2  # passes over one batch, 1 or more
    minibatches: int = 2  # optimizer steps per pass, 1 or more
    beta: float = 0.1  # weight of the KL to the reference at the start; 0 = none
    target_kl: float = 6.0  # nats per sequence that beta is adapted to; 0 = beta stays
    tokens_per_microbatch: int = 1024  # memory bound: prompt and completion tokens in one forward pass

    def __post_init__(self) -> None:
        _require(self.method in METHODS, f"optimizer.method: given {self.method!r}; known: {', '.join(METHODS)}")
        _require(self.lr is None or self.lr > 0, "optimizer.lr must be above 0")
        _require(self.epochs >= 1 and self.minibatches >= 1, "optimizer.epochs and .minibatches must be 1 or more")
        _require(self.beta >= 0 and self.target_kl >= 0, "optimizer.beta and .target_kl must be 0 or more")


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that decides a run. The same recipe and seed give the same bits on the same machine."""

    seed: int = 0
    iterations: int | None = None  # most policy iterations; null = 24 after the last round of questions
    evaluate_every: int = 6  # iterations between two measurements on held-out prompts
    reference_samples: int = 512  # completions of the reference that standardize the reward, 64 or more
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    threads: int = 0  # compute threads; 0 = as many as there are cores
    sampling: Sampling = field(default_factory=Sampling)
    asking: Asking = field(default_factory=Asking)
    immediate: Immediate = field(default_factory=Immediate)
    optimizer: Optimizer = field(default_factory=Optimizer)

    def __post_init__(self) -> None:
        _require(self.iterations is None or self.iterations >= 1, "iterations must be 1 or more, or null")
        _require(self.evaluate_every >= 1, "evaluate_every must be 1 or more")
        _require(self.reference_samples >= 64, "reference_samples must be 64 or more to standardize the reward")
        _require(self.threads >= 0, "threads must be 0 or more")

    @property
    def most_iterations(self) -> int:
        """Policy iterations at most; the run ends earlier when it has converged.

        Whoever is asked more is learned from longer: after every round the policy can go further from where it began.
        """
        rounds = max(1, -(-self.asking.events // self.asking.per_round))
        return self.iterations or self.asking.every * (rounds - 1) + AFTER_ASKING
