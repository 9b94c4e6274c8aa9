"""Distances between policies: estimates from samples, and the exact value where all of it can be counted.

With l_t = log pi(a_t|s_t) - log pi_ref(a_t|s_t) on samples of pi. Which estimate may stand where is not a
matter of taste: its value may be unbiased and its gradient wrong (2506.09477, 2510.01555, 2512.21852). Cosine
of the expected gradient to that of KL(pi || pi_ref), the worst of three ToyLM(4, 4):

    k1 in the reward 1.00     k2_seq in the loss 1.00     k3 in the loss .44     k2, full in the loss .42
    k3_seq in the loss .37    k2 in the reward .20        k3 in the reward -.38
    k1 in the loss: no gradient at all, only noise
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from rewardloop.functional.masks import keep, masked_sum

Estimator = Literal["k1", "k2", "k2_seq", "k3", "k3_seq", "full"]


def token_divergence(kind: Literal["k1", "k2", "k3"], log_ratio_BT: Tensor) -> Tensor:
    """Per token: k1 = l, k2 = l^2 / 2, k3 = exp(-l) - 1 + l. k3 >= 0, k1 may be negative; all have mean >= 0.

    Source: Schulman, "Approximating KL divergence", 2020 (joschu.net/blog/kl-approx.html).
    """
    if kind == "k1":
        return log_ratio_BT
    if kind == "k2":
        return 0.5 * log_ratio_BT**2
    return torch.expm1(-log_ratio_BT) + log_ratio_BT


def sequence_divergence(kind: Estimator, log_ratio_BT: Tensor, completion_mask_BT: Tensor) -> Tensor:
    """One divergence a sequence, [B]: summed over its tokens, or (k2_seq, k3_seq) of the summed log-ratio."""
    log_ratio_BT = keep(log_ratio_BT, completion_mask_BT)
    if kind == "k2_seq":
        return token_divergence("k2", log_ratio_BT.sum(-1))
    if kind == "k3_seq":
        return token_divergence("k3", log_ratio_BT.sum(-1))
    if kind == "full":
        raise ValueError("full needs the whole vocabulary, not the sampled tokens: see full_divergence")
    return masked_sum(token_divergence(kind, log_ratio_BT), completion_mask_BT)


def full_divergence(logprobs_BTV: Tensor, ref_logprobs_BTV: Tensor) -> Tensor:
    """KL(pi(.|s_t) || pi_ref(.|s_t)) of every state, [B, T]; only for vocabularies that fit in memory.

    As a loss it misses how earlier tokens lead to later states.
    """
    return (logprobs_BTV.exp() * (logprobs_BTV - ref_logprobs_BTV)).sum(-1)


def exact_kl(logprobs_N: Tensor, ref_logprobs_N: Tensor) -> Tensor:
    """KL(pi || pi_ref) over N outcomes that are all there are; a scalar."""
    return (logprobs_N.exp() * (logprobs_N - ref_logprobs_N)).sum()


def total_variation(p_N: Tensor, q_N: Tensor) -> Tensor:
    """TV(p, q) = sum |p - q| / 2, in [0, 1]; a scalar."""
    return 0.5 * (p_N - q_N).abs().sum()


def adapt_beta(beta: float, kl: float, target: float, samples: int) -> float:
    """The weight of the KL term after a batch of `samples` sequences that measured `kl` nats per sequence.

    Up to the target, slowly:    beta <- beta * (1 + max(kl / target - 1, -0.2) * samples / 10000)
    beyond it, at once:          beta <- max(beta, 1 / sqrt(2 target)) * min(kl / target, 2)^(1/4)

    The optimum exp(R / beta) of a standardized normal reward lies 1 / (2 beta^2) nats from the reference: hence the
    least beta beyond the target; the power sees to rewards that are not normal. A small beta on the way costs
    nothing, as the policy is still far from that optimum. Source of the slow rule, which takes thousands of
    batches in both directions: Ziegler et al. 1909.08593, section 2.2.
    """
    if kl > target:
        least = (2 * target) ** -0.5
        return float(max(beta, least) * min(kl / target, 2.0) ** 0.25)
    return beta * (1 + max(kl / target - 1, -0.2) * samples / 10_000)
