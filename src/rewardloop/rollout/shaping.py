"""What a request may ask of the distribution that its tokens are drawn from: nucleus, penalties, bias, alternatives.

The shaped distribution *is* the sampling distribution mu: log-probabilities that are recorded with tokens are those of
the shaped, renormalized one, so that importance weights stay defined.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Shaping:
    """OpenAI's parameters of the same names; the defaults change nothing."""

    top_p: float = 1.0  # in (0, 1]: the fewest tokens that have this share of the probability
    presence_penalty: float = 0.0  # taken from the logit of every token said before
    frequency_penalty: float = 0.0  # the same, times how often it was said
    logit_bias: Mapping[int, float] = field(default_factory=dict)  # added to logits, by token id
    top_logprobs: int = 0  # how many of the likeliest tokens are told with each

    @property
    def idle(self) -> bool:
        """Whether it changes and tells nothing."""
        return self == Shaping()


def shape_logits(logits_V: Tensor, shaping: Shaping, said_T: np.ndarray, temperature: float) -> Tensor:
    """Logits of the distribution to draw from, at `temperature`; tokens outside the nucleus have -inf.

    `said_T`: the token ids of the completion so far.
    """
    logits_V = logits_V.clone()
    if shaping.logit_bias:
        known = [(token, bias) for token, bias in shaping.logit_bias.items() if token < len(logits_V)]
        biased = torch.tensor([token for token, _ in known], dtype=torch.long, device=logits_V.device)
        logits_V[biased] += torch.tensor([bias for _, bias in known], device=logits_V.device)
    if len(said_T) and (shaping.presence_penalty or shaping.frequency_penalty):
        ids, counts = np.unique(said_T, return_counts=True)
        penalties = (shaping.presence_penalty + shaping.frequency_penalty * counts).astype(np.float32)
        logits_V[torch.from_numpy(ids)] -= torch.from_numpy(penalties).to(logits_V.device)
    if shaping.top_p < 1 and temperature > 0:
        logits_V = logits_V.masked_fill(~_nucleus(logits_V / temperature, shaping.top_p), -torch.inf)
    return logits_V


def top_tokens(logits_V: Tensor, count: int, temperature: float) -> tuple[tuple[int, float], ...]:
    """The likeliest tokens of the distribution drawn from, with their log-probabilities, likeliest first."""
    logprobs_V = torch.log_softmax(logits_V.float() / (temperature or 1.0), dim=-1)
    values, ids = logprobs_V.topk(min(count, len(logprobs_V)))
    return tuple(zip(ids.tolist(), values.tolist(), strict=True))


def _nucleus(logits_V: Tensor, top_p: float) -> Tensor:
    """True for the fewest tokens, likeliest first, whose probabilities come to `top_p`."""
    probs_V, order_V = torch.softmax(logits_V.float(), dim=-1).sort(descending=True, stable=True)
    before_V = probs_V.double().cumsum(-1) - probs_V.double()
    kept_V = torch.zeros_like(probs_V, dtype=torch.bool)
    kept_V[order_V] = before_V < top_p
    return kept_V
