"""Fitting a head on frozen features: a second or less for the feedback of one round of the loop."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from rewardloop.errors import ConfigError
from rewardloop.feedback.evidence import Evidence, gather_evidence
from rewardloop.reward.likelihood import build_channel, channel_size, judgment_nll, start_channel
from rewardloop.reward.model import Extractor, RewardModel
from rewardloop.types import Feedback, Prompt

CHANNEL_DEVIATION = 2.0  # prior standard deviation of cutpoints, tie and bar around their start, in logits
MOST_STEPS = 300


@dataclass(frozen=True, eq=False)
class LinearHeads:
    """H linear heads over standardized features of a frozen trunk. A Scorer."""

    extractor: Extractor
    weight_HD: Tensor  # float64
    mean_D: Tensor
    scale_D: Tensor

    @cached_property
    def digest(self) -> str:
        digest = hashlib.sha256(self.extractor.digest.encode())
        for tensor in self.tensors().values():
            digest.update(tensor.numpy().tobytes())
        return digest.hexdigest()

    def tensors(self) -> dict[str, Tensor]:
        """By the names of the fields, for safetensors."""
        return {"weight_HD": self.weight_HD, "mean_D": self.mean_D, "scale_D": self.scale_D}

    def raw_scores(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> np.ndarray:
        features_BD = self.extractor.features(prompts, completions).double()
        return ((features_BD - self.mean_D) / self.scale_D @ self.weight_HD.T).T.numpy()


def fit_head(
    feedback: Sequence[Feedback],
    extractor: Extractor,
    *,
    prior: float = 1.0,
    seed: int = 0,
    heads: int = 5,
) -> RewardModel:
    """Fit R = w . z to judgments of any kinds on the frozen features z of `extractor`.

    Maximum a posteriori: w ~ N(0, prior^2 / D), so that rewards differ by about `prior` logits before
    anything is known; the log-length of the completion is a covariate in the likelihood and left out of the
    reward. Head 0 uses everything; `heads` more are fitted to bootstrapped events around random draws from
    the prior, and disagree where little is known (2310.02743). The same seed gives the same bits at the same
    number of threads. Raises DataError when the feedback says nothing, ConfigError for a prior that is not
    positive.
    """
    if prior <= 0 or heads < 0:
        raise ConfigError(f"prior {prior} must be above 0 and heads {heads} at least 0")
    evidence = gather_evidence(feedback)
    prompts, completions = zip(*evidence.texts, strict=True)
    features_ND: Tensor = extractor.features(prompts, completions).double()
    mean_D, scale_D = features_ND.mean(0), features_ND.std(0, correction=0).clamp_min(1e-6)
    design = _Design((features_ND - mean_D) / scale_D, length_covariate(completions), prior)
    weight_HD = _fit_heads(evidence, design, _bootstrap_weights(evidence.events, heads, seed), seed)
    return RewardModel(LinearHeads(extractor, weight_HD, mean_D, scale_D))


@dataclass(frozen=True, eq=False)
class _Design:
    """Standardized features and the length covariate of N texts."""

    features_ND: Tensor
    length_N: Tensor
    prior: float


def _fit_heads(evidence: Evidence, design: _Design, weights_HE: Tensor, seed: int) -> Tensor:
    """Weights of all heads at once: their objectives share nothing but the channel.

    Searched in units of the prior, where the objective curves at least 1 in every direction. The optimum lies
    in the span of the feature rows plus the prior draw, so that with few texts only as many numbers are
    searched.
    """
    heads, width = len(weights_HE), design.features_ND.shape[1]
    scaled_ND = design.features_ND * (design.prior / width**0.5)
    basis_RD = _row_basis(scaled_ND)
    reduced_NR = scaled_ND @ basis_RD.T
    anchor_HD = _normal((heads, width), seed)
    anchor_HD[0] = 0.0
    anchor_scores_HN = anchor_HD @ scaled_ND.T
    start_C = start_channel(evidence)

    def objective(free: Tensor) -> Tensor:
        move_HR, slope_H, channel_C = _split(free, heads, len(basis_RD))
        scores_HN = anchor_scores_HN + move_HR @ reduced_NR.T + slope_H[:, None] * design.length_N
        nll = judgment_nll(scores_HN, evidence, build_channel(channel_C, evidence), weights_HE).sum()
        strayed = move_HR.square().sum() + slope_H.square().sum() / design.prior**2
        shifted = heads * (channel_C - start_C).square().sum() / CHANNEL_DEVIATION**2
        return nll + (strayed + shifted) / 2

    free = torch.zeros(heads * (len(basis_RD) + 1) + channel_size(evidence), dtype=torch.float64)
    free[heads * (len(basis_RD) + 1) :] = start_C
    move_HR, _, _ = _split(minimize(objective, free), heads, len(basis_RD))
    weight_HD: Tensor = (anchor_HD + move_HR @ basis_RD) * (design.prior / width**0.5)
    return weight_HD


def _row_basis(features_ND: Tensor) -> Tensor:
    """Orthonormal rows that span those of `features_ND`; everything, where there are too many to be worth
    it."""
    rows, width = features_ND.shape
    if 2 * rows > width:
        return torch.eye(width, dtype=features_ND.dtype)
    _, _, basis_RD = torch.linalg.svd(features_ND, full_matrices=False)
    return torch.as_tensor(basis_RD)


def minimize(objective: Callable[[Tensor], Tensor], start: Tensor) -> Tensor:
    """The minimum of a smooth function of one vector by L-BFGS from `start` (float64, left as it is)."""
    free: Tensor = start.clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [free],
        max_iter=MOST_STEPS,
        tolerance_grad=1e-5,
        tolerance_change=1e-10,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = objective(free)
        torch.autograd.backward(value)
        return value

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return free.detach()


def _split(free: Tensor, heads: int, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    moves, slopes = heads * rank, heads
    return free[:moves].view(heads, rank), free[moves : moves + slopes], free[moves + slopes :]


def _bootstrap_weights(events: int, heads: int, seed: int) -> Tensor:
    """How often each event is drawn, [1 + heads, events]; head 0 sees every event once."""
    rng = np.random.default_rng(seed)
    drawn_HE = rng.multinomial(events, np.full(events, 1 / events), size=heads)
    return torch.from_numpy(np.vstack([np.ones((1, events)), drawn_HE]))


def _normal(shape: tuple[int, ...], seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def length_covariate(completions: Sequence[str]) -> Tensor:
    """Log of 1 + characters, standardized over the texts at hand: a covariate of what people say."""
    length_N = torch.tensor([len(text) + 1.0 for text in completions], dtype=torch.float64).log()
    return (length_N - length_N.mean()) / length_N.std(correction=0).clamp_min(1e-6)
