"""Sums and means over the tokens that are used. Masks are named for what is kept: True = used.

A masked entry never reaches a result, not even as NaN: `torch.where` selects before anything is summed.
"""

from __future__ import annotations

import torch
from torch import Tensor


def keep(values_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """`values_BT` where the mask is True, 0 elsewhere."""
    return torch.where(mask_BT, values_BT, 0.0)


def masked_sum(values_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Sum over the tokens of each sequence, [B]."""
    return keep(values_BT, mask_BT).sum(-1)


def masked_mean(values_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Mean over all used tokens, a scalar; 0 when none is used."""
    return keep(values_BT, mask_BT).sum() / mask_BT.sum().clamp(min=1)


def last_token_mask(mask_BT: Tensor) -> Tensor:
    """True at the last used token of each sequence only; sequences without tokens have none.

    The end token is an action: where one was sampled, it is the last used token, never the pad behind it.
    """
    following_BT = torch.nn.functional.pad(mask_BT[:, 1:], (0, 1), value=False)
    return mask_BT & ~following_BT


def check_right_padded(mask_BT: Tensor) -> None:
    """Raises ValueError unless every row is one or more True followed by False only."""
    without_gaps_BT = mask_BT[:, :-1] | ~mask_BT[:, 1:]
    if mask_BT.dtype != torch.bool or not bool(mask_BT[:, 0].all() & without_gaps_BT.all()):
        raise ValueError("completion_mask_BT must be boolean: one or more True, then only False, in each row")
