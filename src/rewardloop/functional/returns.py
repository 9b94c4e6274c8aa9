"""From rewards to returns: what each action brought from its position to the end.

All tensors are [B, T], right-padded; the completion mask is True at every action, the end token included.
Results are 0 outside the mask. The discount of the objective is 1 (a smaller one changes the optimum);
`gae_lambda` trades bias for variance.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rewardloop.functional.masks import keep, last_token_mask, masked_sum


def token_rewards(phi_BT1: Tensor, scores_B: Tensor, completion_mask_BT: Tensor) -> Tensor:
    """Immediate rewards of a potential, anchored: they sum to R - phi(x) exactly.

        r_t = phi(s_{t+1}) - phi(s_t)  for every token but the last;   r_last = R - phi(s_last)

    Args:
        phi_BT1: potential of every prefix, column 0 the prompt; entries behind the last action are not read.
        scores_B: R(x, y).

    Source: potential-based shaping, Ng, Harada and Russell 1999; the residual at the last action keeps the
    optimum where it is, whatever phi is.
    """
    ahead_BT = torch.where(last_token_mask(completion_mask_BT), scores_B[:, None], phi_BT1[:, 1:])
    return keep(ahead_BT - phi_BT1[:, :-1], completion_mask_BT)


def terminal_rewards(scores_B: Tensor, completion_mask_BT: Tensor) -> Tensor:
    """The whole score at the last action: `token_rewards` of phi = 0."""
    return keep(scores_B[:, None].expand(completion_mask_BT.shape), last_token_mask(completion_mask_BT))


def sequence_returns(rewards_BT: Tensor, completion_mask_BT: Tensor) -> Tensor:
    """The sum of a sequence's rewards, at each of its tokens: S = R - beta sum l, with the KL in them."""
    totals_B = masked_sum(rewards_BT, completion_mask_BT)
    return keep(totals_B[:, None].expand(completion_mask_BT.shape), completion_mask_BT)


def rewards_to_go(rewards_BT: Tensor, completion_mask_BT: Tensor, gamma: float = 1.0) -> Tensor:
    """G_t = sum_{l>=0} gamma^l r_{t+l}."""
    return _discounted_sums(keep(rewards_BT, completion_mask_BT), gamma)


def gae(
    rewards_BT: Tensor,
    completion_mask_BT: Tensor,
    *,
    gae_lambda: float,
    values_BT: Tensor | None = None,
    gamma: float = 1.0,
) -> Tensor:
    """Generalized advantage estimates.

        delta_t = r_t + gamma V(s_{t+1}) - V(s_t), V(end) = 0;  A_t = sum_{l>=0} (gamma lambda)^l delta_{t+l}

    Args:
        values_BT: V of the state before each action; None = 0. The rewards of `token_rewards` carry their
            critic already: pass None with them, or phi is subtracted twice.
        gae_lambda: 1 is unbiased whatever V is; below 1 as wrong as V is, with less variance.

    Source: Schulman et al. 1506.02438, eq. 11 and 16.
    """
    deltas_BT = keep(rewards_BT, completion_mask_BT)
    if values_BT is not None:
        values_BT = keep(values_BT, completion_mask_BT)
        deltas_BT = deltas_BT + gamma * torch.nn.functional.pad(values_BT[:, 1:], (0, 1)) - values_BT
    return _discounted_sums(deltas_BT, gamma * gae_lambda)


def _discounted_sums(values_BT: Tensor, factor: float) -> Tensor:
    """y_t = x_t + factor * y_{t+1}. Pads are 0 and lie behind, so that they add nothing."""
    sums_BT = torch.empty_like(values_BT)
    running_B = torch.zeros_like(values_BT[:, 0])
    for t in range(values_BT.shape[1] - 1, -1, -1):
        running_B = values_BT[:, t] + factor * running_B
        sums_BT[:, t] = running_B
    return sums_BT
