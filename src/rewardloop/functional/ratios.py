"""Importance ratios: how far the policy has moved from the one that sampled, over which stretch.

For a reward that comes at the end, only the ratio of the whole sequence is unbiased; it has the largest
variance.
Relative bias at KL(mu || pi) = .15, mean of eight ToyLM(3, 3): none .45, geomean (with seq_mean, as GSPO)
.44, token .26, sequence 0.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from rewardloop.functional.masks import keep

Level = Literal["none", "token", "prefix", "sequence", "geomean"]


def level_log_ratio(level: Level, log_ratio_BT: Tensor, completion_mask_BT: Tensor) -> Tensor:
    """log u of every token, [B, T], from the log-ratios of the single tokens.

    none 0; token l_t; prefix sum_{u<=t} l_u (right for a true advantage); sequence sum_u l_u (right for a
    terminal reward); geomean the mean over the sequence (Zheng et al. 2507.18071, eq. 7).
    """
    log_ratio_BT = keep(log_ratio_BT, completion_mask_BT)
    if level == "none":
        return torch.zeros_like(log_ratio_BT)
    if level == "token":
        return log_ratio_BT
    if level == "prefix":
        return keep(log_ratio_BT.cumsum(-1), completion_mask_BT)
    total_BT = log_ratio_BT.sum(-1, keepdim=True).expand(log_ratio_BT.shape)
    if level == "geomean":
        total_BT = total_BT / completion_mask_BT.sum(-1, keepdim=True).clamp(min=1)
    return keep(total_BT, completion_mask_BT)


def correction_weights(
    proximal_logprobs_BT: Tensor, old_logprobs_BT: Tensor, completion_mask_BT: Tensor, cap: float
) -> Tensor:
    """c = min(pi_prox / mu, cap), [B, T], without gradient: what the update began with, against the sampler.

    Source: Hilton et al. 2110.00641, eq. 6; truncation as in Fu et al. 2505.24298.
    """
    log_ratio_BT = keep((proximal_logprobs_BT - old_logprobs_BT).detach(), completion_mask_BT)
    return keep(log_ratio_BT.exp().clamp(max=cap), completion_mask_BT)


def effective_share(log_weights_B: Tensor) -> float:
    """Effective sample size of importance weights as a share of n: (sum w)^2 / (n sum w^2), in [1/n, 1].

    Below 0.5 the batch is too far from the policy to learn from it: drop it.
    """
    shares_B = log_weights_B.detach().cpu().double().softmax(0)
    return 1 / (len(shares_B) * float((shares_B**2).sum()))
