"""What bounds an update: which samples it may learn from, and how far it may move the policy.

Distances add up as their roots: n steps in one direction, each of KL e, end at KL n^2 e. So what an iteration
may move is a share of the way, the root of the KL, to the target (trust region, Schulman et al. 1502.05477).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from rewardloop.errors import TrainingError
from rewardloop.functional.divergences import token_divergence
from rewardloop.functional.masks import keep, masked_sum
from rewardloop.functional.ratios import effective_share
from rewardloop.models.language_model import LanguageModel

MAX_APPROX_KL: Final = 0.02  # nats per token: beyond it the samples no longer speak of the policy
STRIDE: Final = 1 / 6  # of the way to the target KL, covered by one iteration at most
LEAST_ESS: Final = 0.5  # effective share of a batch under the sequence weights pi_prox / mu
MOST_LAG: Final = 2  # weight versions between sampling and learning
MOST_LOG_RATIO: Final = 1e-3  # between engine and updater in float32; rounding alone stays below a tenth of it


@dataclass(frozen=True, slots=True)
class Freshness:
    """How far a batch is from the policy that is to learn from it."""

    log_ratio: float  # greatest |log pi_prox - log mu| of a token sampled under the present weights
    lag: int  # weight versions since the oldest token was sampled
    ess: float  # effective share of the batch under the sequence weights

    @property
    def usable(self) -> bool:
        """False for a batch that must be dropped: more than two versions old, or below half its effective size."""
        return self.lag <= MOST_LAG and self.ess >= LEAST_ESS


def measure_freshness(
    proximal_BT: Tensor, old_BT: Tensor, mask_BT: Tensor, versions_BT: Tensor, weight_version: int
) -> Freshness:
    """Log-probs of the policy as it is against those at sampling, by weights `versions_BT`."""
    log_ratio_BT = keep(proximal_BT - old_BT, mask_BT)
    current_BT = mask_BT & (versions_BT == weight_version)
    return Freshness(
        log_ratio=float(keep(log_ratio_BT, current_BT).abs().max()),
        lag=weight_version - int(versions_BT[mask_BT].min()),
        ess=effective_share(masked_sum(log_ratio_BT, mask_BT)),
    )


def check_agreement(log_ratio: float) -> None:
    """Raises TrainingError where engine and updater give one token, under the same float32 weights, two log-probs."""
    if not log_ratio <= MOST_LOG_RATIO:
        raise TrainingError(
            f"the engine and the update differ by {log_ratio:.2g} nats on a token, under the same weights; expected "
            f"below {MOST_LOG_RATIO:g}. Dropout in the policy (put it into evaluation mode), weights that the engine "
            "was not given, or another temperature do that; nothing was learned from this batch"
        )


def step_limit(target_kl: float, mask_BT: Tensor) -> float:
    """The most KL(before || after), nats per sequence, that one iteration may move the policy.

    STRIDE^2 of the target, and MAX_APPROX_KL a token; the latter alone where there is no target (0).
    """
    by_token = MAX_APPROX_KL * float(mask_BT.sum(-1).float().mean())
    return min(by_token, STRIDE**2 * target_kl) if target_kl > 0 else by_token


def step_kl(before_BT: Tensor, after_BT: Tensor, mask_BT: Tensor) -> float:
    """KL(before || after), nats per sequence, from log-probs on samples of `before`: mean over sequences of sum k3."""
    return float(masked_sum(token_divergence("k3", keep(before_BT - after_BT, mask_BT)), mask_BT).mean())


def keep_weights(lm: LanguageModel) -> dict[str, Tensor]:
    """A copy of the weights that learn."""
    return {name: weight.detach().clone() for name, weight in lm.model.named_parameters() if weight.requires_grad}


@torch.no_grad()
def draw_back(lm: LanguageModel, before: Mapping[str, Tensor], moved: float, limit: float) -> float:
    """Take the weights back towards `before`, so that about `limit` nats are left of the `moved` ones; the share kept.

    The KL of a small step grows with the square of its length, so the step is multiplied by sqrt(limit / moved).
    """
    share = math.sqrt(limit / moved) if math.isfinite(moved) else 0.0
    for name, weight in lm.model.named_parameters():
        if name in before:
            weight.copy_(torch.lerp(before[name], weight, share))
    return share
