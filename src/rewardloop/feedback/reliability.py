"""How far each person can be trusted, with intervals, and what their answers together say about the texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.sparse import coo_matrix, csr_matrix
from scipy.sparse.csgraph import connected_components
from scipy.special import expit
from scipy.stats import halfnorm

from rewardloop.feedback.channel import (
    KAPPA_SD,
    LAPSES,
    REWARD_SD,
    SEVERITY_SD,
    SIDE_SD,
    Layout,
    compute_loss,
    kappa_penalty,
    observe,
    read_pairs,
    read_ratings,
    start_free,
)
from rewardloop.feedback.evidence import Evidence, Text, gather_evidence
from rewardloop.types import Feedback

_DRAWS = 400  # of a person's numbers, for the interval of the weight
_GAPS = np.sqrt(2) * REWARD_SD * halfnorm.ppf((np.arange(16) + 0.5) / 16)  # how far two texts usually differ
_ORDINARY = float(np.mean(2 * expit(_GAPS) - 1))


@dataclass(frozen=True, slots=True)
class Reliability:
    """What is known about one person; standard deviations are of the posterior, given the texts' rewards."""

    annotator: str
    judgments: int  # choices, rankings and ratings that the estimate rests on
    weight: float  # 0 guesses or says the opposite, 1 is as informative as an ordinary person who never lapses
    interval: tuple[float, float]  # 95 %, of the weight
    discrimination: float  # kappa: 1 is ordinary, 0 guesses, below 0 says the opposite
    discrimination_sd: float
    lapse: float  # share of answers given without reading
    side_bias: float  # above 0 leans to the text shown first, in logits
    side_bias_sd: float
    severity: float  # above 0 withholds stars, in units of the reward; 0 is the median of all who rate
    severity_sd: float


@dataclass(frozen=True, slots=True, eq=False)
class ChannelFit:
    """Rewards of N texts and the numbers of A people, fitted together."""

    texts: tuple[Text, ...]
    annotators: tuple[str, ...]
    rewards_N: np.ndarray
    discrimination_A: np.ndarray
    lapse_A: np.ndarray
    side_bias_A: np.ndarray
    severity_A: np.ndarray
    judgments_A: np.ndarray
    sd_A4: np.ndarray  # of discrimination, logit of the lapse, side bias, severity
    weight_A: np.ndarray
    weight_interval_A2: np.ndarray
    precision_NN: csr_matrix  # of the rewards, given the people
    steps: np.ndarray  # free numbers of the scales
    unit: float  # what kappas were divided by, and rewards multiplied
    origin: float  # what was then taken from rewards and severities

    def reliabilities(self) -> tuple[Reliability, ...]:
        """Everybody who has a name, the least reliable first."""
        rows = (self._row(a) for a, name in enumerate(self.annotators) if name and self.judgments_A[a])
        return tuple(sorted(rows, key=lambda row: (row.weight, row.discrimination, row.annotator)))

    def covariance(self, texts: Sequence[int]) -> np.ndarray:
        """Posterior covariance of the rewards of some texts (numbers in `self.texts`), given the people."""
        _, part_N = connected_components(self.precision_NN, directed=False)
        rows_K = np.asarray(texts)
        covariance_KK = np.zeros((len(rows_K), len(rows_K)))
        for part in np.unique(part_N[rows_K]):  # texts that no judgment links know nothing of each other
            here, linked = np.flatnonzero(part_N[rows_K] == part), np.flatnonzero(part_N == part)
            inverse = np.linalg.inv(self.precision_NN[linked][:, linked].toarray())
            at = np.searchsorted(linked, rows_K[here])
            covariance_KK[np.ix_(here, here)] = inverse[np.ix_(at, at)]
        return covariance_KK

    def _row(self, a: int) -> Reliability:
        low, high = self.weight_interval_A2[a]
        return Reliability(
            annotator=self.annotators[a],
            judgments=int(self.judgments_A[a]),
            weight=float(self.weight_A[a]),
            interval=(float(low), float(high)),
            discrimination=float(self.discrimination_A[a]),
            discrimination_sd=float(self.sd_A4[a, 0]),
            lapse=float(self.lapse_A[a]),
            side_bias=float(self.side_bias_A[a]),
            side_bias_sd=float(self.sd_A4[a, 2]),
            severity=float(self.severity_A[a]),
            severity_sd=float(self.sd_A4[a, 3]),
        )


def measure_people(feedback: Sequence[Feedback], criterion: str | None = None, seed: int = 0) -> ChannelFit:
    """Fit everybody's numbers from judgments by one criterion (None: all of them are about one and the same).

    Raises DataError when the judgments say nothing about which texts are better.
    """
    chosen = [judgment for judgment in feedback if criterion is None or judgment.criterion == criterion]
    return fit_channel(gather_evidence(chosen), seed=seed)


def fit_channel(evidence: Evidence, start: ChannelFit | None = None, seed: int = 0) -> ChannelFit:
    """Maximize likelihood times priors. With an earlier fit as start, a few new judgments cost a few steps.

    Most people are taken to mean well: the rewards are first fitted as if everybody were ordinary, then each person
    starts from the kappa in -1, 0, 1, 2 that fits them best.
    """
    layout = Layout(observe(evidence))
    origin_P = start_free(layout)
    free_P = _start(origin_P, layout) if start is None else _resume(origin_P, layout, evidence, start)
    free_P = _minimize(free_P, layout, origin_P, np.ones(layout.size, dtype=bool))
    unit = _ordinary_unit(free_P[layout.slices["kappa"]])
    scaled_P = _rescale(free_P, layout, unit)
    origin = _ordinary_severity(scaled_P, layout)
    return _describe(_shift(scaled_P, layout, -origin), layout, evidence, (unit, origin), seed)


def compute_weight(kappa: np.ndarray, lapse: np.ndarray, side_bias: np.ndarray) -> np.ndarray:
    """How much better than chance a person finds the better of two usual texts, ordinary people being 1; in [0, 1].

    Averaged over both sides and over gaps as the prior of the rewards has them: a yardstick that does not move with
    the data.
    """
    x = np.asarray(kappa)[..., None] * _GAPS
    side = np.asarray(side_bias)[..., None]
    above = (expit(x + side) + expit(x - side) - 1).mean(-1)
    return np.asarray(np.clip((1 - np.asarray(lapse)) * above / _ORDINARY, 0, 1))


def _start(origin_P: np.ndarray, layout: Layout) -> np.ndarray:
    only_rewards = np.zeros(layout.size, dtype=bool)
    only_rewards[layout.slices["reward"]] = only_rewards[layout.slices["severity"]] = True
    free_P = _minimize(origin_P, layout, origin_P, only_rewards)
    at = layout.slices["kappa"]
    tried = np.array([-1.0, 0.0, 1.0, 2.0])
    losses = [_loss_by_person(np.where(_inside(at, layout.size), kappa, free_P), layout) for kappa in tried]
    free_P[at] = tried[np.argmin(losses, axis=0)]
    return free_P


def _inside(part: slice, size: int) -> np.ndarray:
    inside = np.zeros(size, dtype=bool)
    inside[part] = True
    return inside


def _loss_by_person(free_P: np.ndarray, layout: Layout) -> np.ndarray:
    seen = layout.observations
    _, s_E, lapse_E, _ = read_pairs(free_P, layout)
    p_E = (1 - lapse_E) * s_E + lapse_E / 2
    loss_E = -seen.weight_E * (seen.first_E * np.log(p_E) + (1 - seen.first_E) * np.log1p(-p_E))
    total_A = np.bincount(seen.person_E, loss_E, seen.people) + kappa_penalty(free_P[layout.slices["kappa"]])[0]
    if len(seen.text_F):
        step_FK, p_FK, _ = _rating_probabilities(free_P, layout)
        p_F = p_FK[np.arange(len(step_FK)), seen.step_F]
        total_A += np.bincount(seen.person_F, -seen.weight_F * np.log(p_F), seen.people)
    return np.asarray(total_A)


def _rating_probabilities(free_P: np.ndarray, layout: Layout) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of every rating and step: P without lapses, P, and the derivative of the first by x = kappa (R - severity)."""
    seen = layout.observations
    felt_F, lapse_F, kappa_F = read_ratings(free_P, layout)
    below_FK = expit(layout.cutpoints(free_P)[layout.rows] - (kappa_F * felt_F)[:, None])
    steps = np.array(seen.steps)[seen.scale_F][:, None]
    step_FK = np.maximum(np.diff(below_FK, axis=1), 1e-12)
    guess_FK = np.where(np.arange(step_FK.shape[1]) < steps, 1 / steps, 0.0)
    p_FK = (1 - lapse_F[:, None]) * step_FK + lapse_F[:, None] * guess_FK
    return step_FK, p_FK, -np.diff(below_FK * (1 - below_FK), axis=1)


def _resume(origin_P: np.ndarray, layout: Layout, evidence: Evidence, start: ChannelFit) -> np.ndarray:
    """The numbers of an earlier fit for texts and people that it knew."""
    free_P, at = origin_P.copy(), layout.slices
    texts = {text: number for number, text in enumerate(start.texts)}
    people = {name: number for number, name in enumerate(start.annotators)}
    for number, text in enumerate(evidence.texts):
        free_P[at["reward"]][number] = start.rewards_N[texts[text]] if text in texts else 0.0
    lapse_A = np.log(start.lapse_A / (1 - start.lapse_A))
    groups = (
        ("kappa", start.discrimination_A),
        ("lapse", lapse_A),
        ("side", start.side_bias_A),
        ("severity", start.severity_A),
    )
    for number, name in enumerate(evidence.annotators):
        for group, values in groups if name in people else ():
            free_P[at[group]][number] = values[people[name]]
    if len(start.steps) == at["steps"].stop - at["steps"].start:
        free_P[at["steps"]] = start.steps
    return _rescale(_shift(free_P, layout, start.origin), layout, 1 / start.unit)


def _minimize(free_P: np.ndarray, layout: Layout, origin_P: np.ndarray, free: np.ndarray) -> np.ndarray:
    """L-BFGS over the numbers that are `free`."""
    whole = free_P.copy()

    def objective(part: np.ndarray) -> tuple[float, np.ndarray]:
        whole[free] = part
        loss, slope = compute_loss(whole, layout, origin_P)
        return loss, slope[free]

    found = minimize(
        objective, free_P[free], jac=True, method="L-BFGS-B", options={"maxiter": 500, "ftol": 1e-10, "gtol": 1e-5}
    )
    whole[free] = found.x
    return whole


def _ordinary_unit(kappa_A: np.ndarray) -> float:
    """The median of the kappas above 0: that person is ordinary.

    Only the priors settle the unit of the rewards, and in a joint fit they draw it towards small rewards.
    """
    honest = kappa_A[kappa_A > 0]
    return float(np.median(honest)) if len(honest) else 1.0


def _ordinary_severity(free_P: np.ndarray, layout: Layout) -> float:
    """The median severity of those who rate and do not say the opposite; 0 where nobody rates."""
    at, rates_A = layout.slices, np.zeros(layout.observations.people, dtype=bool)
    rates_A[layout.observations.person_F] = True
    severity_A = free_P[at["severity"]][rates_A & (free_P[at["kappa"]] > 0)]
    return float(np.median(severity_A)) if len(severity_A) else 0.0


def _shift(free_P: np.ndarray, layout: Layout, distance: float) -> np.ndarray:
    """The same channel with rewards and severities moved together: only their differences are seen."""
    at, moved = layout.slices, free_P.copy()
    moved[at["reward"]] += distance
    moved[at["severity"]] += distance
    return moved


def _rescale(free_P: np.ndarray, layout: Layout, unit: float) -> np.ndarray:
    """The same channel with rewards in other units."""
    at, scaled = layout.slices, free_P.copy()
    scaled[at["kappa"]] /= unit
    scaled[at["reward"]] *= unit
    scaled[at["severity"]] *= unit
    return scaled


def _describe(
    free_P: np.ndarray, layout: Layout, evidence: Evidence, units: tuple[float, float], seed: int
) -> ChannelFit:
    seen, at = layout.observations, layout.slices
    kappa_A, side_A, logit_A = free_P[at["kappa"]], free_P[at["side"]], free_P[at["lapse"]]
    precision_NN, information_A44 = _information(free_P, layout)
    covariance_A44 = np.linalg.inv(information_A44)
    noise = np.random.default_rng(seed).standard_normal((_DRAWS, 1, 4))
    drawn = free_P[at["kappa"].start : at["severity"].stop].reshape(4, -1).T + np.einsum(
        "aij,dej->dai", np.linalg.cholesky(covariance_A44), noise
    )
    weights = compute_weight(drawn[..., 0], expit(drawn[..., 1]), drawn[..., 2])
    counted = np.bincount(evidence.comparisons.annotator_E[evidence.comparisons.kind_E == 0], minlength=seen.people)
    counted += np.bincount(evidence.rankings.annotator_E, minlength=seen.people)
    counted += np.bincount(seen.person_F, minlength=seen.people)
    return ChannelFit(
        texts=evidence.texts,
        annotators=evidence.annotators,
        rewards_N=free_P[at["reward"]],
        discrimination_A=kappa_A,
        lapse_A=expit(logit_A),
        side_bias_A=side_A,
        severity_A=free_P[at["severity"]],
        judgments_A=counted,
        sd_A4=np.sqrt(covariance_A44.diagonal(axis1=1, axis2=2)),
        weight_A=compute_weight(kappa_A, expit(logit_A), side_A),
        weight_interval_A2=np.quantile(weights, [0.025, 0.975], axis=0).T,
        precision_NN=precision_NN,
        steps=free_P[at["steps"]],
        unit=units[0],
        origin=units[1],
    )


def _information(free_P: np.ndarray, layout: Layout) -> tuple[csr_matrix, np.ndarray]:
    """Expected information plus that of the priors: about the rewards given people, about people given rewards."""
    seen, at = layout.observations, layout.slices
    gap_E, s_E, lapse_E, kappa_E = read_pairs(free_P, layout)
    p_E = (1 - lapse_E) * s_E + lapse_E / 2
    sharp_E = (1 - lapse_E) * s_E * (1 - s_E)
    per_E = seen.weight_E / (p_E * (1 - p_E))
    by_person = np.stack([sharp_E * gap_E, (0.5 - s_E) * lapse_E * (1 - lapse_E), sharp_E * seen.sided_E], axis=1)
    people_A44 = np.zeros((seen.people, 4, 4))
    np.add.at(
        people_A44[:, :3, :3], seen.person_E, per_E[:, None, None] * by_person[:, :, None] * by_person[:, None, :]
    )
    i, j, strong_E = seen.texts_E2[:, 0], seen.texts_E2[:, 1], per_E * (sharp_E * kappa_E) ** 2
    diagonal_N = np.bincount(i, strong_E, seen.texts) + np.bincount(j, strong_E, seen.texts) + 1 / REWARD_SD**2
    if len(seen.text_F):
        text_F, people_F44 = _rating_information(free_P, layout)
        diagonal_N += np.bincount(seen.text_F, text_F, seen.texts)
        np.add.at(people_A44, seen.person_F, people_F44)
    numbers = np.arange(seen.texts)
    precision_NN = coo_matrix(
        (
            np.concatenate([diagonal_N, -strong_E, -strong_E]),
            (np.concatenate([numbers, i, j]), np.concatenate([numbers, j, i])),
        ),
        shape=(seen.texts, seen.texts),
    ).tocsr()
    lapse_A = expit(free_P[at["lapse"]])
    priors = [np.full(seen.people, 1 / KAPPA_SD**2), sum(LAPSES) * lapse_A * (1 - lapse_A)]
    priors += [np.full(seen.people, 1 / sd**2) for sd in (SIDE_SD, SEVERITY_SD)]
    people_A44[:, np.arange(4), np.arange(4)] += np.stack(priors, axis=1)
    return precision_NN, people_A44


def _rating_information(free_P: np.ndarray, layout: Layout) -> tuple[np.ndarray, np.ndarray]:
    """Expected information of every rating about its text's reward and about its person's four numbers."""
    seen = layout.observations
    felt_F, lapse_F, kappa_F = read_ratings(free_P, layout)
    step_FK, p_FK, by_x_FK = _rating_probabilities(free_P, layout)
    by_x_FK = by_x_FK * (1 - lapse_F[:, None])
    steps = np.array(seen.steps)[seen.scale_F][:, None]
    guess_FK = np.where(np.arange(step_FK.shape[1]) < steps, 1 / steps, 0.0)
    by_logit = (guess_FK - step_FK) * (lapse_F * (1 - lapse_F))[:, None]
    by_person = np.stack(
        [by_x_FK * felt_F[:, None], by_logit, np.zeros_like(by_x_FK), -by_x_FK * kappa_F[:, None]], axis=2
    )
    share_FK = seen.weight_F[:, None] / np.maximum(p_FK, 1e-12)
    about_text = (share_FK * by_x_FK**2).sum(1) * kappa_F**2
    return about_text, np.einsum("fk,fki,fkj->fij", share_FK, by_person, by_person)
