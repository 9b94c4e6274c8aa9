"""The policy gradient: the weight of each token, and the loss, for every method of optimize/methods.

    L = sum_i coef_i [ -sum_t c_it S(u_it, A_it) + beta KL_i ]

`compute_advantages` makes A (groups return, baseline, scale); `policy_loss` makes L (groups ratio and kl, and the
coefficients). A loss is a sum over sequences, so that micro-batches add up to the batch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rewardloop.errors import ConfigError
from rewardloop.functional.advantages import compute_baseline, compute_scale, flat_groups
from rewardloop.functional.divergences import Estimator, adapt_beta, sequence_divergence, token_divergence
from rewardloop.functional.losses import LossOutput, aggregation_weights, surrogate
from rewardloop.functional.masks import check_right_padded, keep, masked_sum
from rewardloop.functional.ratios import correction_weights, effective_share
from rewardloop.functional.returns import gae, rewards_to_go, sequence_returns, terminal_rewards
from rewardloop.optimize.methods import METHODS, KLTerm, PolicyGradient, Ratio
from rewardloop.types import ScoredRollout

__all__ = [
    "METHODS",
    "KLTerm",
    "LossOutput",
    "PolicyBatch",
    "PolicyGradient",
    "Ratio",
    "adapt_beta",
    "compute_advantages",
    "policy_loss",
]


# ---------------------------------------------------------------- the weight of each token


def compute_advantages(
    method: PolicyGradient,
    scored: ScoredRollout,
    *,
    beta: float,
    gae_lambda: float = 1.0,
    running_mean: float = 0.0,
    proximal_logprobs_BT: Tensor | None = None,
    weights_B: Tensor | None = None,
) -> Tensor:
    """A, [B, T]: groups return, baseline and scale, on rewards with the KL in them where the method has it.

    Args:
        beta: weight of the KL term, 0 or more.
        gae_lambda: 1 is unbiased; below 1 only what phi has earned (reward.potential.gate_lambda).
        running_mean: the `ema` baseline, 0 before the first batch; see advantages.update_running_mean.
        proximal_logprobs_BT: of the policy that is about to move, whose KL is meant; None = the sampler's.
        weights_B: of the sequences, for the scale batch_std; None = 1 each.
    """
    mask_BT = scored.completion_mask_BT
    groups_B = torch.tensor(scored.rollout.groups, device=mask_BT.device)
    returns_BT = compute_returns(method, scored, beta, gae_lambda, proximal_logprobs_BT)
    baseline_B1 = compute_baseline(method.baseline, returns_BT, mask_BT, groups_B, running_mean)
    advantages_BT = keep(returns_BT - baseline_B1, mask_BT)
    weights_B = torch.ones_like(returns_BT[:, 0]) if weights_B is None else weights_B
    scale = compute_scale(method.scale, returns_BT, advantages_BT, mask_BT, groups_B, weights_B)
    return advantages_BT / scale


def compute_returns(
    method: PolicyGradient,
    scored: ScoredRollout,
    beta: float,
    gae_lambda: float = 1.0,
    logprobs_BT: Tensor | None = None,
) -> Tensor:
    """Group return, [B, T]: of immediate rewards with a critic, of the score at the last token without."""
    mask_BT = scored.completion_mask_BT
    rewards_BT = scored.rewards_BT if method.critic else terminal_rewards(scored.scores_B, mask_BT)
    if method.kl is not None and method.kl.place == "reward" and beta != 0:
        current_BT = scored.old_logprobs_BT if logprobs_BT is None else logprobs_BT
        log_ratio_BT = keep(current_BT - scored.ref_logprobs_BT, mask_BT)
        assert method.kl.estimator in ("k1", "k2", "k3")  # held by KLTerm
        rewards_BT = rewards_BT - beta * token_divergence(method.kl.estimator, log_ratio_BT)
    if method.returns == "sequence":
        return sequence_returns(rewards_BT, mask_BT)
    if method.returns == "to_go":
        return rewards_to_go(rewards_BT, mask_BT)
    return gae(rewards_BT, mask_BT, gae_lambda=gae_lambda)


# ---------------------------------------------------------------- the loss


@dataclass(frozen=True, slots=True, eq=False)
class PolicyBatch:
    """What a policy loss needs besides the current log-probs.

    `weights_B` holds the coefficient of each sequence's token sum, computed once on the whole batch: that is
    why the losses of its slices add up to the loss of the whole.
    """

    old_logprobs_BT: Tensor  # mu, at sampling
    proximal_logprobs_BT: Tensor  # the policy the update began with
    ref_logprobs_BT: Tensor
    advantages_BT: Tensor
    completion_mask_BT: Tensor
    weights_B: Tensor
    beta: float  # of the KL in the loss; not used where the KL is in the reward
    tokens: float  # used tokens of the whole batch, the divisor of shares
    ess: float  # effective share of the whole batch under the sequence weights pi_prox / mu

    @staticmethod
    def make(
        method: PolicyGradient,
        scored: ScoredRollout,
        proximal_logprobs_BT: Tensor | None,
        advantages_BT: Tensor,
        *,
        beta: float,
        weights_B: Tensor | None = None,
    ) -> PolicyBatch:
        """The batch of one update. None: pi_prox is the sampler; each weight is 1/B."""
        mask_BT = scored.completion_mask_BT
        check_right_padded(mask_BT)
        if weights_B is None:
            weights_B = torch.full_like(advantages_BT[:, 0], 1 / len(advantages_BT))
        if method.drop_flat_groups:
            groups_B = torch.tensor(scored.rollout.groups, device=mask_BT.device)
            returns_B = compute_returns(method, scored, beta, logprobs_BT=proximal_logprobs_BT)[:, 0]
            weights_B, mask_BT = _without(flat_groups(returns_B, groups_B), weights_B, mask_BT)
        old_BT = scored.old_logprobs_BT
        proximal_BT = old_BT if proximal_logprobs_BT is None else proximal_logprobs_BT
        return PolicyBatch(
            old_logprobs_BT=old_BT,
            proximal_logprobs_BT=proximal_BT,
            ref_logprobs_BT=scored.ref_logprobs_BT,
            advantages_BT=advantages_BT,
            completion_mask_BT=mask_BT,
            weights_B=aggregation_weights(method.aggregation, mask_BT, weights_B, method.constant),
            beta=beta,
            tokens=float(mask_BT.sum()),
            ess=effective_share(masked_sum(proximal_BT - old_BT, scored.completion_mask_BT)),
        )

    def __len__(self) -> int:
        return len(self.weights_B)

    def rows(self, rows: slice | Tensor) -> PolicyBatch:
        """A slice whose loss is its part of this batch's loss: for micro-batches."""
        return replace(
            self,
            old_logprobs_BT=self.old_logprobs_BT[rows],
            proximal_logprobs_BT=self.proximal_logprobs_BT[rows],
            ref_logprobs_BT=self.ref_logprobs_BT[rows],
            advantages_BT=self.advantages_BT[rows],
            completion_mask_BT=self.completion_mask_BT[rows],
            weights_B=self.weights_B[rows],
        )

    def minibatch(self, rows: slice | Tensor) -> PolicyBatch:
        """A slice to take an optimizer step on: over random rows, its mean loss is the batch's."""
        part = self.rows(rows)
        return replace(
            part,
            weights_B=part.weights_B * (len(self) / len(part)),
            tokens=float(part.completion_mask_BT.sum()),
        )


def policy_loss(
    method: PolicyGradient,
    logprobs_BT: Tensor,
    batch: PolicyBatch,
    *,
    full_kl_BT: Tensor | None = None,
) -> LossOutput:
    """The loss of the current log-probs on a batch or a slice of it; groups ratio and KL, and aggregation.

    Args:
        logprobs_BT: of the sampled tokens under the current policy, with gradient. May be narrower than the
            batch, when the longest of these sequences is.
        full_kl_BT: KL over the whole vocabulary at every state, with gradient; for the estimator `full`.

    Metrics, each the slice's part of the whole batch's: approx_kl, mean over tokens of k3 of pi_prox against
    pi (stop an epoch above 0.02); clip_fraction, share of tokens where the bound acted; ess, effective share
    of the batch under the sequence weights pi_prox / mu (drop a batch below 0.5).
    """
    batch = _narrowed(batch, logprobs_BT.shape[1])
    mask_BT = batch.completion_mask_BT
    decoupled = method.ratio.anchor == "proximal"
    values_BT, acted_BT = surrogate(
        logprobs_BT,
        batch.proximal_logprobs_BT if decoupled else batch.old_logprobs_BT,
        batch.advantages_BT,
        mask_BT,
        level=method.ratio.level,
        bound=method.ratio.bound,
    )
    if decoupled:
        values_BT = values_BT * correction_weights(
            batch.proximal_logprobs_BT, batch.old_logprobs_BT, mask_BT, method.ratio.correction_cap
        )
    losses_B = -values_BT.sum(-1)
    if method.kl is not None and method.kl.place == "loss" and batch.beta != 0:
        losses_B = losses_B + batch.beta * _kl_in_loss(method.kl.estimator, logprobs_BT, batch, full_kl_BT)
    behind_BT = keep(batch.proximal_logprobs_BT - logprobs_BT.detach(), mask_BT)
    tokens = max(batch.tokens, 1.0)
    metrics = {
        "approx_kl": float(token_divergence("k3", behind_BT).sum()) / tokens,
        "clip_fraction": float(acted_BT.sum()) / tokens,
        "ess": batch.ess * float(mask_BT.sum()) / tokens,
    }
    return LossOutput((batch.weights_B * losses_B).sum(), metrics)


def _kl_in_loss(estimator: Estimator, logprobs_BT: Tensor, batch: PolicyBatch, full_kl_BT: Tensor | None) -> Tensor:
    mask_BT = batch.completion_mask_BT
    if estimator == "full":
        if full_kl_BT is None:
            raise ConfigError("kl estimator full needs full_kl_BT, the KL over the vocabulary at every state")
        return masked_sum(full_kl_BT, mask_BT)
    return sequence_divergence(estimator, logprobs_BT - batch.ref_logprobs_BT, mask_BT)


def _without(dropped_B: Tensor, weights_B: Tensor, mask_BT: Tensor) -> tuple[Tensor, Tensor]:
    """Weights and mask with some sequences left out; what they weighed goes to the others."""
    kept_B = torch.where(dropped_B, 0.0, weights_B)
    share = weights_B.sum() / kept_B.sum().clamp(min=torch.finfo(weights_B.dtype).tiny)
    return kept_B * share, mask_BT & ~dropped_B[:, None]


def _narrowed(batch: PolicyBatch, width: int) -> PolicyBatch:
    full = batch.completion_mask_BT.shape[1]
    if width == full:
        return batch
    if width > full or bool(batch.completion_mask_BT[:, width:].any()):
        raise ValueError(f"log-probs of {width} tokens do not cover completions of up to {full} tokens")
    return replace(
        batch,
        old_logprobs_BT=batch.old_logprobs_BT[:, :width],
        proximal_logprobs_BT=batch.proximal_logprobs_BT[:, :width],
        ref_logprobs_BT=batch.ref_logprobs_BT[:, :width],
        advantages_BT=batch.advantages_BT[:, :width],
        completion_mask_BT=batch.completion_mask_BT[:, :width],
    )
