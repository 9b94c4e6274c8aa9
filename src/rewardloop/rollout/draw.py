"""Draw tokens from logits with one uniform number a row, and know their log-probabilities for free."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

BLOCK = 256  # tokens of the vocabulary summed at once


def uniform_stream(seed: int, length: int) -> np.ndarray:
    """The uniform numbers of one sequence, float64 in [0, 1): they depend on the seed and the place alone."""
    return np.random.Generator(np.random.Philox(key=seed)).random(length)


def draw_tokens(logits_BV: Tensor, temperature_B: np.ndarray, uniform_B: np.ndarray) -> tuple[Tensor, Tensor]:
    """Sample from softmax(logits / temperature) by inverse CDF: token_B and logprob_B.

    Temperature 0 takes the most likely token, with its log-probability at temperature 1. A row that is not
    finite gives a log-probability that is not finite.
    """
    greedy_B = temperature_B == 0
    scale_B = np.where(greedy_B, 1.0, temperature_B).astype(np.float32)
    if (scale_B != 1).any():
        logits_BV = logits_BV / torch.from_numpy(scale_B).to(logits_BV.device)[:, None]
    probs_BV = torch.softmax(logits_BV, dim=-1, dtype=torch.float32)
    if greedy_B.all():
        token_B = logits_BV.argmax(-1)
    else:
        token_B = invert_cdf(probs_BV, torch.from_numpy(uniform_B).to(logits_BV.device))
        if greedy_B.any():
            rows = torch.from_numpy(greedy_B.nonzero()[0]).to(logits_BV.device)
            token_B[rows] = logits_BV[rows].argmax(-1)
    return token_B, probs_BV.gather(1, token_B[:, None])[:, 0].log()


def invert_cdf(probs_BV: Tensor, uniform_B: Tensor) -> Tensor:
    """The first token whose cumulative probability exceeds `uniform`: token_B.

    First the block of the vocabulary, by the sums of blocks, then the token within it: the large array is
    read once and never written. Sums run in float64; a token of probability 0 is never drawn.
    """
    vocabulary = probs_BV.shape[1]
    whole = vocabulary - vocabulary % BLOCK
    sums_BK = torch.unflatten(probs_BV[:, :whole], 1, (-1, BLOCK)).sum(-1)
    if whole < vocabulary:
        sums_BK = torch.cat([sums_BK, probs_BV[:, whole:].sum(-1, keepdim=True)], dim=1)
    sums_BK = sums_BK.double()
    cdf_BK = sums_BK.cumsum(-1)
    block_B1, rest_B1 = _first_above(cdf_BK, uniform_B[:, None] * cdf_BK[:, -1:])
    ids_BW = block_B1 * BLOCK + torch.arange(BLOCK, device=probs_BV.device)
    within_BW = probs_BV.gather(1, ids_BW.clamp(max=vocabulary - 1)).double().masked_fill_(ids_BW >= vocabulary, 0.0)
    offset_B1, _ = _first_above(within_BW.cumsum(-1), rest_B1)
    return (block_B1 * BLOCK + offset_B1)[:, 0].clamp_(max=vocabulary - 1)


def _first_above(cdf_BK: Tensor, target_B1: Tensor) -> tuple[Tensor, Tensor]:
    """Index of the first entry above `target`, and how far `target` reaches into it."""
    # rounding may carry the target to the very end, where no entry is above it
    target_B1 = torch.minimum(target_B1, torch.nextafter(cdf_BK[:, -1:], torch.zeros_like(target_B1)))
    index_B1 = torch.searchsorted(cdf_BK, target_B1, right=True).clamp_(max=cdf_BK.shape[1] - 1)
    before_B1 = torch.where(index_B1 > 0, cdf_BK.gather(1, (index_B1 - 1).clamp(min=0)), 0.0)
    return index_B1, (target_B1 - before_B1).clamp_(min=0.0)
