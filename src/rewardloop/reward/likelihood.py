"""One likelihood for everything people say about texts.

A text has a reward R, in logits. A person a reads it as x = beta_type * kappa_a * (R - s_a), and says

    a choice       first sigma(d - tie), second sigma(-d - tie), else a tie; d = x_1 - x_2 + b_a
    both bad       where it is offered, first of all: sigma(bar - x_1) sigma(bar - x_2)
    a correction   the corrected text wins by a margin m: sigma(d - m), no tie
    a ranking      Plackett-Luce: the best of those left, again and again
    a step k       sigma(c_k - x) - sigma(c_{k-1} - x): stars, thumbs, reactions, flags

and, with probability lapse_a, anything that was offered, at random. Ties are Rao and Kupper's (1967) model, which is
the ordinal view of a choice: a latent difference with three steps and cutpoints at -tie and +tie. Without ties, tie is
0 and a choice is Bradley-Terry. kappa_a, s_a, lapse_a, b_a default to 1, 0, 0, 0: every person is alike.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

from rewardloop.feedback.evidence import BOTH_BAD, FIRST, KINDS, TIE, Evidence

_EDIT_KINDS = (KINDS.index("edit"), KINDS.index("dialogue"))  # no tie is offered when a text is corrected
_RANKING = KINDS.index("ranking")
CHANNEL_DEVIATION = 2.0  # prior standard deviation of cutpoints, tie and bar around their start, in logits


@dataclass(frozen=True, eq=False)
class Annotators:
    """How each of A people reads and answers; all float64 tensors of A entries."""

    severity_A: Tensor  # s_a: stars are withheld (> 0) or given away (< 0), in logits
    discrimination_A: Tensor  # kappa_a: 1 as everybody, 0 guesses, < 0 says the opposite
    lapse_A: Tensor  # epsilon_a in [0, 1): share of answers that are random
    side_bias_A: Tensor  # b_a: > 0 leans to the text shown first, in logits

    @staticmethod
    def alike(count: int) -> Annotators:
        """`count` people without peculiarities."""
        zeros = torch.zeros(count, dtype=torch.float64)
        return Annotators(zeros, torch.ones(count, dtype=torch.float64), zeros, zeros)


@dataclass(frozen=True, eq=False)
class Channel:
    """From rewards to answers: what the questions have in common, and who answers them."""

    cutpoints: tuple[Tensor, ...]  # for each scale, categories - 1 increasing numbers
    tie: Tensor  # >= 0: half the width of "the same", in logits
    bar: Tensor  # below it a text counts as bad, in logits
    annotators: Annotators
    beta_K: Tensor  # how sharply each kind of judgment (evidence.KINDS) follows the reward; 1 by default


def channel_size(evidence: Evidence) -> int:
    """Free numbers of the channel of `evidence`: its cutpoints, tie and bar."""
    return sum(scale.categories - 1 for scale in evidence.scales) + 2


def start_channel(evidence: Evidence) -> Tensor:
    """Free numbers at which every scale's steps are as frequent as they were used, float64."""
    free: list[float] = []
    for number, scale in enumerate(evidence.scales):
        used = evidence.ordinals.category_E[evidence.ordinals.scale_E == number]
        counts = np.bincount(used, minlength=scale.categories) + 0.5
        below = np.cumsum(counts)[:-1] / counts.sum()
        cuts = np.log(below / (1 - below))
        free += [float(cuts[0]), *(float(np.log(np.expm1(gap))) for gap in np.diff(cuts))]
    tied = float(np.mean(evidence.comparisons.choice_E == TIE)) if evidence.ties_offered else 0.0
    tie = 2 * math.atanh(min(tied, 0.9))  # at equal rewards P(tie) = tanh(tie / 2)
    return torch.tensor([*free, math.log(math.expm1(max(tie, 1e-2))), -1.0], dtype=torch.float64)


def build_channel(
    free_C: Tensor, evidence: Evidence, annotators: Annotators | None = None, beta_K: Tensor | None = None
) -> Channel:
    """The channel of free numbers (see start_channel): gaps and tie through softplus, so every value is valid.

    tie is 0 where nobody gave one: with no tie offered a choice is Bradley-Terry.
    """
    cutpoints, at = [], 0
    for scale in evidence.scales:
        part = free_C[at : at + scale.categories - 1]
        cutpoints.append(torch.cat([part[:1], part[:1] + softplus(part[1:]).cumsum(0)]))
        at += scale.categories - 1
    tie = softplus(free_C[at]) if evidence.ties_offered else torch.zeros((), dtype=torch.float64)
    return Channel(
        cutpoints=tuple(cutpoints),
        tie=tie,
        bar=free_C[at + 1],
        annotators=annotators or Annotators.alike(len(evidence.annotators)),
        beta_K=torch.ones(len(KINDS), dtype=torch.float64) if beta_K is None else beta_K,
    )


def event_nll(scores_N: Tensor, evidence: Evidence, channel: Channel) -> Tensor:
    """-log P of every event given the rewards of the texts, shape [..., events].

    `scores_N` are rewards of evidence.texts in logits, shape [..., N] (leading dimensions: heads of an ensemble). An
    event without evidence has 0. Differentiable in the scores and everything in the channel.
    """
    total = scores_N.new_zeros((*scores_N.shape[:-1], evidence.events))
    tables = (
        (evidence.comparisons.event_E, compute_comparison_logprobs(scores_N, evidence, channel)),
        (evidence.ordinals.event_E, compute_ordinal_logprobs(scores_N, evidence, channel)),
        (evidence.rankings.event_E, compute_ranking_logprobs(scores_N, evidence, channel)),
    )
    for event_E, logprobs_E in tables:
        total = total.index_add(-1, torch.from_numpy(event_E), -logprobs_E.to(total.dtype))
    return total


def judgment_nll(scores_N: Tensor, evidence: Evidence, channel: Channel, weights_E: Tensor | None = None) -> Tensor:
    """-log P of all events, each times its weight (default 1), shape [...]. Kinds are never weighed by counts."""
    nll_E = event_nll(scores_N, evidence, channel)
    return nll_E.sum(-1) if weights_E is None else (nll_E * weights_E).sum(-1)


def compute_comparison_logprobs(scores_N: Tensor, evidence: Evidence, channel: Channel) -> Tensor:
    """log P of every choice, shape [..., E]."""
    table = evidence.comparisons
    x_E2 = _perceive(scores_N, table.texts_E2, table.annotator_E[:, None], table.kind_E[:, None], channel)
    who = torch.from_numpy(table.annotator_E)
    corrected = torch.from_numpy(np.isin(table.kind_E, _EDIT_KINDS))
    d_E = x_E2[..., 0] - x_E2[..., 1] + channel.annotators.side_bias_A[who] * ~corrected
    tie_E = channel.tie * ~corrected
    margin_E = torch.from_numpy(table.margin_E)
    choice = torch.from_numpy(table.choice_E)
    lead_E = torch.where(choice == FIRST, d_E, -d_E)
    logp_E = logsigmoid(lead_E - tie_E - margin_E)
    if evidence.ties_offered:
        logp_E = torch.where(choice == TIE, _log_step(d_E + channel.tie, d_E - channel.tie), logp_E)
    if evidence.both_bad_offered:
        logp_bad_E = logsigmoid(channel.bar - x_E2).sum(-1)
        logp_E = torch.where(
            choice == BOTH_BAD, logp_bad_E, torch.where(corrected, logp_E, logp_E + _log1mexp(logp_bad_E))
        )
    offered = 2 + (int(evidence.ties_offered) + int(evidence.both_bad_offered)) * ~corrected
    return _with_lapse(logp_E, -torch.log(offered.double()), channel.annotators.lapse_A[who])


def compute_ordinal_logprobs(scores_N: Tensor, evidence: Evidence, channel: Channel) -> Tensor:
    """log P of every step on a scale times the row's weight, shape [..., E]."""
    table = evidence.ordinals
    if not evidence.scales:
        return scores_N.new_zeros((*scores_N.shape[:-1], 0))
    x_E = _perceive(scores_N, table.text_E, table.annotator_E, table.kind_E, channel)
    cuts_SC = _padded_cutpoints(channel.cutpoints)
    scale = torch.from_numpy(table.scale_E)
    category = torch.from_numpy(table.category_E)
    logp_E = _log_step(cuts_SC[scale, category + 1] - x_E, cuts_SC[scale, category] - x_E)
    options = torch.tensor([s.categories for s in evidence.scales], dtype=torch.float64)[scale]
    lapse_E = channel.annotators.lapse_A[torch.from_numpy(table.annotator_E)]
    return _with_lapse(logp_E, -torch.log(options), lapse_E) * torch.from_numpy(table.weight_E)


def compute_ranking_logprobs(scores_N: Tensor, evidence: Evidence, channel: Channel) -> Tensor:
    """log P of every order, shape [..., E]: each text is chosen out of itself and those ranked strictly below.

    For equal ranks nothing is said about their order, which is left out of the product.
    """
    table = evidence.rankings
    if not len(table.event_E):
        return scores_N.new_zeros((*scores_N.shape[:-1], 0))
    kind = np.full_like(table.annotator_E, _RANKING)
    texts = np.maximum(table.texts_EK, 0)
    x_EK = _perceive(scores_N, texts, table.annotator_E[:, None], kind[:, None], channel)
    exists = table.texts_EK >= 0
    below = (table.ranks_EK[:, None, :] > table.ranks_EK[:, :, None]) & exists[:, None, :] & exists[:, :, None]
    rivals = torch.from_numpy(below | np.eye(below.shape[-1], dtype=bool))
    among_EK = x_EK.unsqueeze(-2).masked_fill(~rivals, -math.inf).logsumexp(-1)
    logp_E = (x_EK - among_EK).masked_fill(~torch.from_numpy(exists), 0.0).sum(-1)
    log_orders_E = torch.from_numpy(exists.sum(-1) + 1.0).lgamma()
    return _with_lapse(logp_E, -log_orders_E, channel.annotators.lapse_A[torch.from_numpy(table.annotator_E)])


def _perceive(scores_N: Tensor, texts: np.ndarray, annotator: np.ndarray, kind: np.ndarray, channel: Channel) -> Tensor:
    """x = beta kappa (R - s) of the texts, as the annotators read them; shape [..., *texts.shape]."""
    who, what = torch.from_numpy(annotator), torch.from_numpy(kind)
    sharpness = channel.beta_K[what] * channel.annotators.discrimination_A[who]
    return sharpness * (scores_N[..., torch.from_numpy(texts)] - channel.annotators.severity_A[who])


def _log_step(upper: Tensor, lower: Tensor) -> Tensor:
    """log(sigma(upper) - sigma(lower)) = log sigma(upper) + log sigma(-lower) + log(1 - exp(lower - upper))."""
    return logsigmoid(upper) + logsigmoid(-lower) + _log1mexp(lower - upper)


def _log1mexp(value: Tensor) -> Tensor:
    """log(1 - exp(value)) for value < 0."""
    return torch.log(-torch.expm1(value))


def _with_lapse(logp_E: Tensor, log_guess_E: Tensor, lapse_E: Tensor) -> Tensor:
    return torch.logaddexp(torch.log1p(-lapse_E) + logp_E, torch.log(lapse_E) + log_guess_E)


def _padded_cutpoints(cutpoints: Sequence[Tensor]) -> Tensor:
    """One row for each scale: -inf, its cutpoints, +inf, and +inf to the width of the longest."""
    width = max(len(cuts) for cuts in cutpoints) + 2
    rows = []
    for cuts in cutpoints:
        low = cuts.new_full((1,), -math.inf)
        high = cuts.new_full((width - 1 - len(cuts),), math.inf)
        rows.append(torch.cat([low, cuts, high]))
    return torch.stack(rows)
