"""Surrogates: functions of the current log-probs whose gradient is the policy gradient, within bounds.

Every loss is a sum over sequences with one coefficient each, so that slices of a batch add up to the batch,
and so that all sequences of a tiny world, weighted by their probability, give the exact expected gradient.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from rewardloop.errors import ConfigError
from rewardloop.functional.masks import keep
from rewardloop.functional.ratios import Level, level_log_ratio

Aggregation = Literal["sum", "token_mean", "seq_mean"]


@dataclass(frozen=True, slots=True)
class Clip:
    """PPO's bound: no gradient for moving on in the good direction beyond `low` below or `high` above 1.

    `dual` bounds what one token with a negative advantage may cost (1912.09729, eq. 5); None = no bound.
    Sources: 1707.06347, eq. 7; unequal ends 2503.14476, eq. 8.
    """

    low: float = 0.2
    high: float = 0.2
    dual: float | None = 3.0

    def __post_init__(self) -> None:
        if not (0 <= self.low <= 1 and self.high >= 0 and (self.dual is None or self.dual > 1)):
            raise ConfigError(f"clip: low in [0, 1], high >= 0, dual above 1 or none expected; given {self}")


@dataclass(frozen=True, slots=True)
class Truncate:
    """Weights min(u, cap), without gradient of their own: no token is silenced (CISPO, 2506.13585, eq. 4)."""

    cap: float

    def __post_init__(self) -> None:
        if self.cap <= 0:
            raise ConfigError(f"truncate: a cap above 0 expected; given {self.cap}")


@dataclass(frozen=True, slots=True)
class Mask:
    """Tokens whose ratio lies outside [low, high] are left out."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not 0 <= self.low <= 1 <= self.high:
            raise ConfigError(f"mask: low <= 1 <= high expected; given {self}")


Bound = Clip | Truncate | Mask | None


@dataclass(frozen=True, slots=True, eq=False)
class LossOutput:
    """A scalar loss, and figures about it.

    Both add up over the slices of a batch: shares are of the whole batch's tokens.
    """

    loss: Tensor
    metrics: dict[str, float]


def surrogate(
    logprobs_BT: Tensor,
    anchor_logprobs_BT: Tensor,
    advantages_BT: Tensor,
    completion_mask_BT: Tensor,
    *,
    level: Level,
    bound: Bound,
) -> tuple[Tensor, Tensor]:
    """S(u, A) of every token, [B, T], to be maximized; and where the bound acted, [B, T] bool.

    u is the ratio pi / anchor at `level`. Its gradient runs through the token's own log-prob only, so that
    one formula holds at every level: without a bound the gradient is u * A * grad log pi(a_t|s_t).
    """
    logprobs_BT = keep(logprobs_BT, completion_mask_BT)
    frozen_BT = logprobs_BT.detach()
    weights_BT = level_log_ratio(level, frozen_BT - anchor_logprobs_BT, completion_mask_BT).exp()
    own_BT = (logprobs_BT - frozen_BT).exp()  # 1, with the gradient of log pi
    acted_BT, values_BT = _bounded(weights_BT, own_BT, advantages_BT, bound)
    return keep(values_BT, completion_mask_BT), acted_BT & completion_mask_BT


def _bounded(weights_BT: Tensor, own_BT: Tensor, advantages_BT: Tensor, bound: Bound) -> tuple[Tensor, Tensor]:
    ratio_BT = weights_BT * own_BT
    if bound is None:
        return torch.zeros_like(weights_BT, dtype=torch.bool), ratio_BT * advantages_BT
    if isinstance(bound, Truncate):
        return weights_BT > bound.cap, weights_BT.clamp(max=bound.cap) * own_BT * advantages_BT
    if isinstance(bound, Mask):
        outside_BT = (weights_BT < bound.low) | (weights_BT > bound.high)
        return outside_BT, torch.where(outside_BT, 0.0, ratio_BT * advantages_BT)
    free_BT = ratio_BT * advantages_BT
    values_BT = torch.minimum(free_BT, ratio_BT.clamp(1 - bound.low, 1 + bound.high) * advantages_BT)
    if bound.dual is not None:
        floor_BT = bound.dual * advantages_BT
        values_BT = torch.where(advantages_BT < 0, torch.maximum(values_BT, floor_BT), values_BT)
    return values_BT != free_BT, values_BT


def aggregation_weights(
    kind: Aggregation, completion_mask_BT: Tensor, weights_B: Tensor, constant: float = 1.0
) -> Tensor:
    """The coefficient of each sequence's token sum, [B]: what the tokens of a batch are averaged over.

    sum: w_i / constant (unbiased; the constant of Dr. GRPO 2503.20783 is the longest completion).
    token_mean: w_i / sum_j w_j |y_j| (a common factor). seq_mean: w_i / |y_i| (a token of a long sequence
    counts for less: another optimum).
    """
    lengths_B = completion_mask_BT.sum(-1).to(weights_B.dtype)
    if kind == "sum":
        return weights_B / constant
    if kind == "token_mean":
        return weights_B / (weights_B * lengths_B).sum().clamp(min=torch.finfo(weights_B.dtype).tiny)
    return weights_B / lengths_B.clamp(min=1)


def value_loss(
    values_BT: Tensor,
    old_values_BT: Tensor,
    returns_BT: Tensor,
    completion_mask_BT: Tensor,
    weights_B: Tensor,
    clip: float | None = 0.2,
) -> Tensor:
    """c_i * 1/2 * max((V - G)^2, (clip(V, V_old +- clip) - G)^2), summed: PPO's critic loss; a scalar.

    Source: 1909.08593, the released code; the coefficient .1 beside the policy loss comes from there too.
    """
    errors_BT = (values_BT - returns_BT) ** 2
    if clip is not None:
        near_BT = old_values_BT + (values_BT - old_values_BT).clamp(-clip, clip)
        errors_BT = torch.maximum(errors_BT, (near_BT - returns_BT) ** 2)
    return 0.5 * (weights_B * keep(errors_BT, completion_mask_BT).sum(-1)).sum()
