"""How people's answers depend on what they judge, and how much noise each of them adds: a penalized likelihood.

A text has a reward R; the gap of two texts is in logits of an ordinary person. Person a says

    pair    P(first) = (1 - lapse_a) sigma(kappa_a (R_1 - R_2) + side_a) + lapse_a / 2
    rating  P(step <= k) = (1 - lapse_a) sigma(c_k - kappa_a (R - severity_a)) + lapse_a share of steps <= k

kappa < 0 is somebody who says the opposite; kappa = 0 guesses. A tie counts half for either side, and a ranking of K
as its pairs, each with weight 2/K, so that it weighs as much as the K - 1 choices that made it. What people wrote
(corrections, rewrites) says nothing about how well they read, and is left out. Whoever gave at least 30 ratings on a
scale has spacings of their own between its steps. The names of the priors are below; everything together is one
smooth function of one vector, whose layout is in `Layout`.

The same channel with a neural reward is reward/likelihood.py; here every text has a reward of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.special import expit, log_expit

from rewardloop.feedback.evidence import BOTH_BAD, FIRST, KINDS, TIE, Evidence

REWARD_SD = 1.5  # R ~ N(0, 1.5^2): two texts of one prompt differ so that an ordinary person finds the better in 78 %
KAPPA_SD = 0.5  # kappa ~ N(1, .5^2), and with probability ADVERSARIES N(-1, .5^2)
ADVERSARIES = 0.05
LAPSES = (1.0, 9.0)  # lapse ~ Beta(1, 9): a tenth
SIDE_SD = 0.5
SEVERITY_SD = 1.0
GAP_SD = 0.5  # of the logarithm of a person's own gap between two steps, around everybody's
RATINGS_FOR_OWN_STEPS = 30
_TINY = 1e-12


@dataclass(frozen=True, slots=True, eq=False)
class Observations:
    """Answers as the likelihood reads them: E pairs, F ratings, of N texts by A people."""

    texts: int
    people: int
    steps: tuple[int, ...]  # categories of each scale
    texts_E2: np.ndarray
    first_E: np.ndarray  # 1 the first won, 0 the second, 1/2 a tie
    sided_E: np.ndarray  # 1.0 where the two were shown on two sides
    weight_E: np.ndarray
    person_E: np.ndarray
    text_F: np.ndarray
    step_F: np.ndarray  # 0 is the lowest
    scale_F: np.ndarray
    weight_F: np.ndarray
    person_F: np.ndarray


def observe(evidence: Evidence) -> Observations:
    """The choices, rankings and ratings in `evidence`."""
    pairs, steps = evidence.comparisons, evidence.ordinals
    chosen = pairs.kind_E == KINDS.index("preference")
    choice = pairs.choice_E[chosen]
    first = np.where(choice == FIRST, 1.0, np.where((choice == TIE) | (choice == BOTH_BAD), 0.5, 0.0))
    ranked_R2, weight_R, person_R = _ranked_pairs(evidence)
    return Observations(
        texts=len(evidence.texts),
        people=len(evidence.annotators),
        steps=tuple(scale.categories for scale in evidence.scales),
        texts_E2=np.concatenate([pairs.texts_E2[chosen], ranked_R2]),
        first_E=np.concatenate([first, np.ones(len(weight_R))]),
        sided_E=np.concatenate([np.ones(len(first)), np.zeros(len(weight_R))]),
        weight_E=np.concatenate([np.ones(len(first)), weight_R]),
        person_E=np.concatenate([pairs.annotator_E[chosen], person_R]),
        text_F=steps.text_E,
        step_F=steps.category_E,
        scale_F=steps.scale_E,
        weight_F=steps.weight_E,
        person_F=steps.annotator_E,
    )


def _ranked_pairs(evidence: Evidence) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Better text, worse text; weight 2/K; person."""
    table = evidence.rankings
    if not len(table.event_E):
        return np.zeros((0, 2), dtype=np.int64), np.zeros(0), np.zeros(0, dtype=np.int64)
    exists = table.texts_EK >= 0
    better = (table.ranks_EK[:, :, None] < table.ranks_EK[:, None, :]) & exists[:, :, None] & exists[:, None, :]
    row, i, j = np.nonzero(better)
    texts = np.stack([table.texts_EK[row, i], table.texts_EK[row, j]], axis=1)
    return texts, 2 / exists.sum(1)[row], table.annotator_E[row]


@dataclass(frozen=True, eq=False)
class Layout:
    """Where everything lies in the vector of free numbers, and which row of cutpoints each rating uses."""

    observations: Observations

    @cached_property
    def own_steps(self) -> tuple[tuple[int, int], ...]:
        """(scale, person) of everybody with enough ratings on a scale of three or more steps."""
        seen = self.observations
        keys, counts = np.unique(np.stack([seen.scale_F, seen.person_F]), axis=1, return_counts=True)
        return tuple(
            (int(scale), int(person))
            for (scale, person), count in zip(keys.T, counts, strict=True)
            if count >= RATINGS_FOR_OWN_STEPS and seen.steps[scale] > 2
        )

    @cached_property
    def rows(self) -> np.ndarray:
        """The row of cutpoints of every rating: rows are the scales first, then `own_steps`."""
        row_F = self.observations.scale_F.copy()
        for number, (scale, person) in enumerate(self.own_steps):
            mine = (self.observations.scale_F == scale) & (self.observations.person_F == person)
            row_F[mine] = len(self.observations.steps) + number
        return row_F

    @cached_property
    def slices(self) -> dict[str, slice]:
        """One for each group: "reward", "kappa", "lapse" (as a logit), "side", "severity", and "steps"."""
        seen = self.observations
        steps = sum(seen.steps) - len(seen.steps) + sum(seen.steps[scale] - 2 for scale, _ in self.own_steps)
        sizes = {"reward": seen.texts, **dict.fromkeys(("kappa", "lapse", "side", "severity"), seen.people)}
        ends = np.cumsum([*sizes.values(), steps]).tolist()
        return dict(zip([*sizes, "steps"], [slice(a, b) for a, b in zip([0, *ends], ends, strict=False)], strict=True))

    @property
    def size(self) -> int:
        return int(self.slices["steps"].stop)

    def cutpoints(self, free_P: np.ndarray) -> np.ndarray:
        """One row for every scale and every entry of own_steps; -inf, cutpoints, +inf, and +inf to the full width.

        The middle cutpoint is the scale's alone: who puts all of them higher is severe.
        """
        rows = []
        for middle, log_gaps in self._step_parts(free_P):
            gaps, m = np.exp(log_gaps), len(log_gaps) // 2
            rows.append(middle + np.concatenate([-np.cumsum(gaps[:m][::-1])[::-1], [0.0], np.cumsum(gaps[m:])]))
        width = max(self.observations.steps, default=1) + 1
        padded = [np.concatenate([[-np.inf], row, np.full(width - 1 - len(row), np.inf)]) for row in rows]
        return np.array(padded).reshape(len(rows), width)

    def pull_back(self, free_P: np.ndarray, slope_RC: np.ndarray) -> np.ndarray:
        """The derivative by the numbers of "steps" of what has the derivative `slope_RC` by the cutpoints."""
        slope = np.zeros(self.size)
        for row, ((at_middle, at_gaps, at_own), (_, log_gaps)) in enumerate(
            zip(self._places, self._step_parts(free_P), strict=True)
        ):
            by_cut, m = slope_RC[row, 1 : len(log_gaps) + 2], len(log_gaps) // 2
            below = -np.cumsum(by_cut[:m])
            above = np.cumsum(by_cut[m + 1 :][::-1])[::-1]
            by_gap = np.concatenate([below, above]) * np.exp(log_gaps)
            slope[at_middle] += by_cut.sum()
            slope[at_gaps] += by_gap
            slope[at_own] += by_gap if at_own.stop > at_own.start else 0.0
        return slope

    def own_gaps(self) -> slice:
        """Where the own spacings lie."""
        first = sum(self.observations.steps) - len(self.observations.steps) + self.slices["steps"].start
        return slice(first, self.size)

    @cached_property
    def _places(self) -> list[tuple[int, slice, slice]]:
        """For every row of cutpoints: its middle, the gaps of its scale, its own deviations from them."""
        at, places = self.slices["steps"].start, []
        for steps in self.observations.steps:
            places.append((at, slice(at + 1, at + steps - 1), slice(0, 0)))
            at += steps - 1
        for scale, _ in self.own_steps:
            size = self.observations.steps[scale] - 2
            places.append((*places[scale][:2], slice(at, at + size)))
            at += size
        return places

    def _step_parts(self, free_P: np.ndarray) -> list[tuple[float, np.ndarray]]:
        return [
            (float(free_P[middle]), free_P[gaps] + (free_P[own] if own.stop > own.start else 0.0))
            for middle, gaps, own in self._places
        ]


def start_free(layout: Layout) -> np.ndarray:
    """Everybody ordinary, rewards 0, steps as frequent as they were used."""
    seen, free_P = layout.observations, np.zeros(layout.size)
    free_P[layout.slices["kappa"]] = 1.0
    free_P[layout.slices["lapse"]] = np.log(LAPSES[0] / LAPSES[1])
    at = layout.slices["steps"].start
    for scale, steps in enumerate(seen.steps):
        counts = np.bincount(seen.step_F[seen.scale_F == scale], minlength=steps) + 0.5
        below = np.cumsum(counts)[:-1] / counts.sum()
        cuts = np.log(below / (1 - below))
        free_P[at] = cuts[(steps - 2) // 2]
        free_P[at + 1 : at + steps - 1] = np.log(np.diff(cuts))
        at += steps - 1
    return free_P


def compute_loss(free_P: np.ndarray, layout: Layout, start_P: np.ndarray) -> tuple[float, np.ndarray]:
    """-log of likelihood times priors, up to a constant, and its gradient; `start_P` is what steps are drawn to."""
    priors, by_prior = _penalty(free_P, layout, start_P)
    pairs, by_pairs = _pair_loss(free_P, layout)
    ratings, by_ratings = _rating_loss(free_P, layout)
    return priors + pairs + ratings, by_prior + by_pairs + by_ratings


def _pair_loss(free_P: np.ndarray, layout: Layout) -> tuple[float, np.ndarray]:
    seen, at = layout.observations, layout.slices
    gap_E, s_E, lapse_E, kappa_E = read_pairs(free_P, layout)
    p_E = (1 - lapse_E) * s_E + lapse_E / 2
    loss = -(seen.weight_E * (seen.first_E * np.log(p_E) + (1 - seen.first_E) * np.log1p(-p_E))).sum()
    by_p = -seen.weight_E * (seen.first_E / p_E - (1 - seen.first_E) / (1 - p_E))
    by_z = by_p * (1 - lapse_E) * s_E * (1 - s_E)
    slope = np.zeros(layout.size)
    for side, sign in ((0, 1.0), (1, -1.0)):
        slope[at["reward"]] += np.bincount(seen.texts_E2[:, side], sign * by_z * kappa_E, seen.texts)
    slope[at["kappa"]] = np.bincount(seen.person_E, by_z * gap_E, seen.people)
    slope[at["side"]] = np.bincount(seen.person_E, by_z * seen.sided_E, seen.people)
    by_logit = by_p * (0.5 - s_E) * lapse_E * (1 - lapse_E)
    slope[at["lapse"]] = np.bincount(seen.person_E, by_logit, seen.people)
    return float(loss), slope


def read_pairs(free_P: np.ndarray, layout: Layout) -> tuple[np.ndarray, ...]:
    """Of every pair: the gap of its rewards, sigma(...) kept off 0 and 1, the person's lapse and kappa."""
    seen, at = layout.observations, layout.slices
    rewards_N, kappa_A, side_A = free_P[at["reward"]], free_P[at["kappa"]], free_P[at["side"]]
    gap_E = rewards_N[seen.texts_E2[:, 0]] - rewards_N[seen.texts_E2[:, 1]]
    kappa_E = kappa_A[seen.person_E]
    s_E = np.clip(expit(kappa_E * gap_E + side_A[seen.person_E] * seen.sided_E), _TINY, 1 - _TINY)
    return gap_E, s_E, expit(free_P[at["lapse"]])[seen.person_E], kappa_E


def _rating_loss(free_P: np.ndarray, layout: Layout) -> tuple[float, np.ndarray]:
    seen, at = layout.observations, layout.slices
    slope = np.zeros(layout.size)
    if not len(seen.text_F):
        return 0.0, slope
    cuts_RC = layout.cutpoints(free_P)
    felt_F, lapse_F, kappa_F = read_ratings(free_P, layout)
    upper = expit(cuts_RC[layout.rows, seen.step_F + 1] - kappa_F * felt_F)
    lower = expit(cuts_RC[layout.rows, seen.step_F] - kappa_F * felt_F)
    guess_F = 1 / np.array(seen.steps, dtype=np.float64)[seen.scale_F]
    step_F = np.maximum(upper - lower, _TINY)
    p_F = (1 - lapse_F) * step_F + lapse_F * guess_F
    by_p = -seen.weight_F / p_F
    by_upper, by_lower = (by_p * (1 - lapse_F) * s * (1 - s) for s in (upper, lower))
    by_x = by_lower - by_upper
    by_cut = np.zeros_like(cuts_RC)
    np.add.at(by_cut, (layout.rows, seen.step_F + 1), by_upper)
    np.add.at(by_cut, (layout.rows, seen.step_F), -by_lower)
    slope = layout.pull_back(free_P, by_cut)
    slope[at["reward"]] = np.bincount(seen.text_F, by_x * kappa_F, seen.texts)
    slope[at["severity"]] = np.bincount(seen.person_F, -by_x * kappa_F, seen.people)
    slope[at["kappa"]] = np.bincount(seen.person_F, by_x * felt_F, seen.people)
    by_logit = by_p * (guess_F - step_F) * lapse_F * (1 - lapse_F)
    slope[at["lapse"]] = np.bincount(seen.person_F, by_logit, seen.people)
    return float(-(seen.weight_F * np.log(p_F)).sum()), slope


def read_ratings(free_P: np.ndarray, layout: Layout) -> tuple[np.ndarray, ...]:
    """Of every rating: reward minus the person's severity, the person's lapse and kappa."""
    seen, at = layout.observations, layout.slices
    felt_F = free_P[at["reward"]][seen.text_F] - free_P[at["severity"]][seen.person_F]
    return felt_F, expit(free_P[at["lapse"]])[seen.person_F], free_P[at["kappa"]][seen.person_F]


def _penalty(free_P: np.ndarray, layout: Layout, start_P: np.ndarray) -> tuple[float, np.ndarray]:
    """Priors. The lapse's is that of its logit, so that its mode is a tenth and not the edge."""
    at, scale_P = layout.slices, np.ones(layout.size)
    scale_P[at["reward"]], scale_P[at["side"]], scale_P[at["severity"]] = REWARD_SD, SIDE_SD, SEVERITY_SD
    scale_P[at["steps"]], scale_P[layout.own_gaps()] = 2.0, GAP_SD
    away_P = free_P.copy()
    away_P[at["steps"]] -= start_P[at["steps"]]
    away_P[layout.own_gaps()] = free_P[layout.own_gaps()]
    away_P[at["kappa"]] = away_P[at["lapse"]] = 0.0
    slope = away_P / scale_P**2
    kappas, slope[at["kappa"]] = kappa_penalty(free_P[at["kappa"]])
    logit_A, (a, b) = free_P[at["lapse"]], LAPSES
    slope[at["lapse"]] = (a + b) * expit(logit_A) - a
    lapses = -(a * log_expit(logit_A) + b * log_expit(-logit_A)).sum()
    return float((away_P**2 / scale_P**2).sum() / 2 + kappas.sum() + lapses), slope


def kappa_penalty(kappa_A: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """-log of the two-humped prior of kappa, and its derivative."""
    honest = np.log1p(-ADVERSARIES) - ((kappa_A - 1) / KAPPA_SD) ** 2 / 2
    opposite = np.log(ADVERSARIES) - ((kappa_A + 1) / KAPPA_SD) ** 2 / 2
    share = expit(opposite - honest)
    return -np.logaddexp(honest, opposite), (kappa_A - 1 + 2 * share) / KAPPA_SD**2
