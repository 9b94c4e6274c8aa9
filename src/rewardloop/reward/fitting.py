"""Fitting a head on frozen features: a second or less for the feedback of one round of the loop."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from rewardloop.errors import ConfigError
from rewardloop.feedback.evidence import Evidence, gather_evidence
from rewardloop.feedback.splits import judgment_topic
from rewardloop.reward.annotators import FOLDS, Crowd, fit_annotators, gather_crowd, turn_around
from rewardloop.reward.likelihood import (
    CHANNEL_DEVIATION,
    Annotators,
    build_channel,
    channel_size,
    judgment_nll,
    start_channel,
)
from rewardloop.reward.minimizing import minimize
from rewardloop.reward.model import Extractor, RewardModel, log_lengths
from rewardloop.types import Feedback, Prompt

PRIORS, USUAL_PRIOR = (0.1, 0.3, 1.0, 3.0), 1.0
ROUNDS = 3  # of learning rewards given the people, and people given the rewards
SLOPE_DEVIATION = 1.0  # prior standard deviation of the sway of length, in logits


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
    prior: float | None = None,
    seed: int = 0,
    heads: int = 5,
    alike: bool = False,
) -> RewardModel:
    """Fit R = w . z to judgments of any kinds on the frozen features z of `extractor`.

    Maximum a posteriori: w ~ N(0, prior^2 / D), so that rewards differ by about `prior` logits before anything is known
    (half of that variance is left to the summaries of a text, where its features end in some); None takes the prior
    under which judgments about held-out prompts are most likely. The log-length of the completion is a covariate in the
    likelihood and left out of the reward. Head 0 uses everything; `heads` more are fitted to bootstrapped events around
    random draws from the prior, and disagree where little is known (2310.02743).

    Where two or more people speak, their peculiarities are fitted with the reward and stand in `annotators` of the
    model; several judgments of one and the same weigh together as one, and no account has more than its cap (`Crowd`).
    `alike` takes everybody for ordinary and every judgment for one. The same seed gives the same bits at the same
    number of threads. Raises DataError when the feedback says nothing, ConfigError for a prior that is not positive.
    """
    if (prior is not None and prior <= 0) or heads < 0:
        raise ConfigError(f"prior {prior} must be above 0 and heads {heads} at least 0")
    evidence = gather_evidence(feedback)
    prompts, completions = zip(*evidence.texts, strict=True)
    features_ND: Tensor = extractor.features(prompts, completions).double()
    mean_D, scale_D = features_ND.mean(0), features_ND.std(0, correction=0).clamp_min(1e-6)
    scale_D = scale_D / _prior_shares(len(scale_D), extractor.summaries)
    problem = _Problem(
        evidence,
        (features_ND - mean_D) / scale_D,
        length_covariate(completions),
        Annotators.alike(len(evidence.annotators)),
        torch.ones(evidence.events, dtype=torch.float64),
    )
    topics = [judgment_topic(judgment) for judgment in feedback]
    crowd = None if alike else gather_crowd(feedback, evidence)
    if crowd is not None:
        problem = replace(problem, weights_E=torch.from_numpy(crowd.weigh()))
        problem = _know_people(problem, crowd, prior or USUAL_PRIOR, seed)
    prior = prior or _choose_prior(problem, topics, seed)
    weights_HE = _bootstrap_weights(evidence.events, heads, seed)
    solution = _solve(problem, prior, weights_HE, _prior_draws(weights_HE.shape[0], mean_D.numel(), seed))
    slope = float(solution.slope_H[0]) / length_deviation(completions)
    found = {} if crowd is None else crowd.describe(problem.annotators)
    return RewardModel(
        LinearHeads(extractor, solution.weight_HD, mean_D, scale_D), length_slope=slope, annotators=found
    )


def _prior_shares(width: int, summaries: int) -> Tensor:
    """Factors on standardized features, [D], mean square 1: many columns together weigh as much as few."""
    plain = width - summaries
    if summaries == 0 or plain == 0:
        return torch.ones(width, dtype=torch.float64)
    squares = torch.tensor([width / (2 * plain)] * plain + [width / (2 * summaries)] * summaries, dtype=torch.float64)
    return squares.sqrt()


@dataclass(frozen=True, eq=False)
class _Problem:
    """What was said about N texts, their standardized features, the length covariate, and who said it."""

    evidence: Evidence
    features_ND: Tensor
    length_N: Tensor
    annotators: Annotators
    weights_E: Tensor  # how much each event counts


@dataclass(frozen=True, eq=False)
class _Solution:
    weight_HD: Tensor
    slope_H: Tensor
    channel_C: Tensor


def _solve(problem: _Problem, prior: float, weights_HE: Tensor, draws_HD: Tensor) -> _Solution:
    """All heads at once: their objectives share nothing but the channel.

    Searched in units of the prior, where the objective curves at least 1 in every direction. The optimum lies in the
    span of the feature rows plus the prior draw, so that with few texts only as many numbers are searched.
    """
    evidence, heads = problem.evidence, len(weights_HE)
    deviation = prior / problem.features_ND.shape[1] ** 0.5
    scaled_ND = problem.features_ND * deviation
    basis_RD = _row_basis(scaled_ND)
    reduced_NR = scaled_ND @ basis_RD.T
    drawn_scores_HN = draws_HD @ scaled_ND.T
    start_C = start_channel(evidence)

    def objective(free: Tensor) -> Tensor:
        move_HR, slope_H, channel_C = _split(free, heads, len(basis_RD))
        scores_HN = drawn_scores_HN + move_HR @ reduced_NR.T + slope_H[:, None] * problem.length_N
        channel = build_channel(channel_C, evidence, problem.annotators)
        nll = judgment_nll(scores_HN, evidence, channel, weights_HE * problem.weights_E).sum()
        strayed = move_HR.square().sum() + slope_H.square().sum() / SLOPE_DEVIATION**2
        shifted = heads * (channel_C - start_C).square().sum() / CHANNEL_DEVIATION**2
        return nll + (strayed + shifted) / 2

    free = torch.zeros(heads * (len(basis_RD) + 1) + channel_size(evidence), dtype=torch.float64)
    free[heads * (len(basis_RD) + 1) :] = start_C
    move_HR, slope_H, channel_C = _split(minimize(objective, free), heads, len(basis_RD))
    return _Solution((draws_HD + move_HR @ basis_RD) * deviation, slope_H, channel_C)


def fit_length(evidence: Evidence, length_N: Tensor) -> tuple[Tensor, Tensor]:
    """The slope of length and the free numbers of the channel under which the judgments are most likely if nothing but
    length mattered: where training both beside a backbone begins.

    `length_N`: see `length_covariate`. A whole backbone can read the length of a text as well as anything: from a slope
    of 0, both learn it at once, and together they count it twice.
    """
    start_C = start_channel(evidence)

    def objective(free: Tensor) -> Tensor:
        slope, channel_C = free[0], free[1:]
        nll = judgment_nll(slope * length_N, evidence, build_channel(channel_C, evidence))
        shifted = (channel_C - start_C).square().sum() / CHANNEL_DEVIATION**2
        return nll + (slope.square() / SLOPE_DEVIATION**2 + shifted) / 2

    free = minimize(objective, torch.cat([start_C.new_zeros(1), start_C]))
    return free[0].clone(), free[1:].clone()


def _choose_prior(problem: _Problem, topics: Sequence[str], seed: int) -> float:
    """The prior of PRIORS with the most likely held-out judgments, in 4 folds by prompt.

    A fold is a head that gives the fold's events no weight. With under 8 prompts there is nothing to choose by.
    """
    names = {topic: number for number, topic in enumerate(dict.fromkeys(topics))}
    if len(names) < 2 * FOLDS:
        return USUAL_PRIOR
    fold_of_name = np.random.default_rng(seed).permutation(len(names)) % FOLDS
    fold_E = fold_of_name[[names[topic] for topic in topics]]
    held_out_HE = torch.from_numpy(np.arange(FOLDS)[:, None] == fold_E).double()
    nothing_HD = torch.zeros(FOLDS, problem.features_ND.shape[1], dtype=torch.float64)

    def loss(prior: float) -> float:
        solution = _solve(problem, prior, 1 - held_out_HE, nothing_HD)
        channel = build_channel(solution.channel_C, problem.evidence, problem.annotators)
        scores_HN, weights_HE = _scores(problem, solution), held_out_HE * problem.weights_E
        return float(judgment_nll(scores_HN, problem.evidence, channel, weights_HE).sum())

    return min(PRIORS, key=loss)


def _know_people(problem: _Problem, crowd: Crowd, prior: float, seed: int) -> _Problem:
    """The same problem with the people in it known, as far as their judgments tell.

    In turn: rewards given the people, from all judgments but a fold of them; people given what those rewards say about
    that fold. It begins with everybody alike, so that the majority says what is good.
    """
    held_out_HE = torch.from_numpy(np.arange(FOLDS)[:, None] == crowd.folds(seed)).double()
    nothing_HD = torch.zeros(FOLDS, problem.features_ND.shape[1], dtype=torch.float64)
    for _ in range(ROUNDS):
        solution = _solve(problem, prior, 1 - held_out_HE, nothing_HD)
        found = fit_annotators(_scores(problem, solution), held_out_HE, crowd, solution.channel_C)
        found = turn_around(found, crowd, problem.weights_E.numpy())
        problem = replace(problem, annotators=found, weights_E=torch.from_numpy(crowd.weigh(found)))
    return problem


def _scores(problem: _Problem, solution: _Solution) -> Tensor:
    """scores_HN of the texts as people read them, length included."""
    return solution.weight_HD @ problem.features_ND.T + solution.slope_H[:, None] * problem.length_N


def _row_basis(features_ND: Tensor) -> Tensor:
    """Orthonormal rows that span those of `features_ND`; everything, where there are too many to be worth it."""
    rows, width = features_ND.shape
    if 2 * rows > width:
        return torch.eye(width, dtype=features_ND.dtype)
    _, _, basis_RD = torch.linalg.svd(features_ND, full_matrices=False)
    return torch.as_tensor(basis_RD)


def _split(free: Tensor, heads: int, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    moves, slopes = heads * rank, heads
    return free[:moves].view(heads, rank), free[moves : moves + slopes], free[moves + slopes :]


def _bootstrap_weights(events: int, heads: int, seed: int) -> Tensor:
    """How often each event is drawn, [1 + heads, events]; head 0 sees every event once."""
    rng = np.random.default_rng(seed)
    drawn_HE = rng.multinomial(events, np.full(events, 1 / events), size=heads)
    return torch.from_numpy(np.vstack([np.ones((1, events)), drawn_HE]))


def _prior_draws(heads: int, width: int, seed: int) -> Tensor:
    """Standard normal, [heads, width]; head 0 is drawn to the middle of the prior."""
    generator = torch.Generator().manual_seed(seed)
    draws_HD = torch.randn((heads, width), generator=generator, dtype=torch.float64)
    draws_HD[0] = 0.0
    return draws_HD


def length_covariate(completions: Sequence[str]) -> Tensor:
    """Log of 1 + characters, standardized over the texts at hand: a covariate of what people say."""
    logs_N = torch.from_numpy(log_lengths(completions))
    return (logs_N - logs_N.mean()) / length_deviation(completions)


def length_deviation(completions: Sequence[str]) -> float:
    """Standard deviation of the log-lengths, the unit of the covariate."""
    return max(float(log_lengths(completions).std()), 1e-6)
