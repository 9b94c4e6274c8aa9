"""Baselines and scales: what is taken off a return, and what it is divided by, before it weighs a token.

A baseline that does not depend on the token it weighs leaves the expected gradient where it is; dividing by a
standard deviation of the same few samples does not.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from rewardloop.errors import ConfigError
from rewardloop.functional.masks import keep

Baseline = Literal["none", "ema", "loo", "loo_pos", "group_mean"]
Scale = Literal["none", "group_std", "batch_std"]

EPSILON = 1e-6  # added to standard deviations


def group_sums(values_BT: Tensor, groups_B: Tensor) -> Tensor:
    """Sum over each row's group, at every row, in the shape of `values_BT`; groups are integers >= 0."""
    sums = values_BT.new_zeros(int(groups_B.max()) + 1, *values_BT.shape[1:])
    return sums.index_add_(0, groups_B, values_BT)[groups_B]


def leave_one_out(values_BT: Tensor, groups_B: Tensor) -> Tensor:
    """b_i = mean of the siblings' values, [B] or [B, T].

    Source: Ahmadian et al. 2402.14740, section 3.2. Raises ConfigError for a group of one.
    """
    siblings_B = group_sums(torch.ones_like(groups_B), groups_B) - 1
    if bool((siblings_B < 1).any()):
        raise ConfigError("a leave-one-out baseline needs siblings, given a group of 1; set group_size to 2 or more")
    others = group_sums(values_BT, groups_B) - values_BT
    return others / siblings_B.view(-1, *[1] * (values_BT.dim() - 1))


def group_mean(values_B: Tensor, groups_B: Tensor) -> Tensor:
    """Mean of the whole group, the sequence itself included: scales the gradient by (k-1)/k, no more."""
    return group_sums(values_B, groups_B) / group_sums(torch.ones_like(values_B), groups_B)


def group_std(values_B: Tensor, groups_B: Tensor) -> Tensor:
    """Standard deviation within the group (divisor k-1), [B]; 0 for a group of one.

    Source: Shao et al. 2402.03300, section 4.1. Dividing by it moves the optimum: with k = 2 the gradient is
    that of E[sign(R - R')].
    """
    deviations_B = values_B - group_mean(values_B, groups_B)
    degrees_B = (group_sums(torch.ones_like(values_B), groups_B) - 1).clamp(min=1)
    return (group_sums(deviations_B**2, groups_B) / degrees_B).sqrt()


def flat_groups(values_B: Tensor, groups_B: Tensor) -> Tensor:
    """True where all values of a sequence's group are equal: nothing is to be learned from it, [B] bool."""
    scale_B = group_sums(values_B.abs(), groups_B).clamp(min=1.0)
    return group_std(values_B, groups_B) <= EPSILON * scale_B


def compute_baseline(
    kind: Baseline,
    returns_BT: Tensor,
    completion_mask_BT: Tensor,
    groups_B: Tensor,
    running_mean: float = 0.0,
) -> Tensor:
    """b, [B, T] or [B, 1], to be taken off `returns_BT`.

    none: 0. ema: `running_mean`, the mean return of past batches. loo, group_mean: of the returns at the
    first token, the worth of the whole sequence. loo_pos: of the siblings' returns at the same position; a
    sibling that has ended keeps its last value.
    """
    if kind == "none":
        return torch.zeros_like(returns_BT[:, :1])
    if kind == "ema":
        return torch.full_like(returns_BT[:, :1], running_mean)
    if kind == "loo":
        return leave_one_out(returns_BT[:, 0], groups_B)[:, None]
    if kind == "group_mean":
        return group_mean(returns_BT[:, 0], groups_B)[:, None]
    last_B = completion_mask_BT.sum(-1, keepdim=True) - 1
    held_BT = torch.where(completion_mask_BT, returns_BT, returns_BT.gather(1, last_B))
    return leave_one_out(held_BT, groups_B)


def compute_scale(
    kind: Scale,
    returns_BT: Tensor,
    advantages_BT: Tensor,
    completion_mask_BT: Tensor,
    groups_B: Tensor,
    weights_B: Tensor,
) -> Tensor:
    """What the advantages are divided by, [B, 1] or a scalar.

    none: 1. group_std: of the returns at the first token. batch_std: of the advantages of all tokens, each
    with its sequence's weight. The mean stays: taking it off is the baseline's business.
    """
    if kind == "none":
        return torch.ones_like(returns_BT[:, :1])
    if kind == "group_std":
        return group_std(returns_BT[:, 0], groups_B)[:, None] + EPSILON
    weights_BT = keep(weights_B[:, None].expand(completion_mask_BT.shape), completion_mask_BT)
    weights_BT = weights_BT / weights_BT.sum()
    mean = (weights_BT * advantages_BT).sum()
    return (weights_BT * (advantages_BT - mean) ** 2).sum().sqrt() + EPSILON


def update_running_mean(running_mean: float, returns_BT: Tensor, memory: float = 0.9) -> float:
    """The `ema` baseline after this batch: memory * before + (1 - memory) * mean return of its sequences."""
    return memory * running_mean + (1 - memory) * float(returns_BT[:, 0].mean())
