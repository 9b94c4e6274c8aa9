"""How often answers have a defect, with intervals that hold for rare ones and for alike answers."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from math import sqrt
from statistics import NormalDist

import numpy as np

from rewardloop.evaluate.winrate import by_cluster
from rewardloop.reward.calibration import Estimate
from rewardloop.sandbox.dialogues import DEFECTS
from rewardloop.sandbox.judges import judge
from rewardloop.sandbox.world import World
from rewardloop.types import Completion

NON_INFERIORITY = 0.02  # a defect may rise by two points before it counts as worse


def wilson_interval(rate: float, samples: float, alpha: float = 0.05) -> Estimate:
    """A share with its interval; neither end leaves [0, 1], and a share of 0 has an upper end above 0.

    Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference", eq. 3.
    """
    z = NormalDist().inv_cdf(1 - alpha / 2)
    shrink = 1 + z**2 / samples
    center = (rate + z**2 / (2 * samples)) / shrink
    half = z / shrink * sqrt(rate * (1 - rate) / samples + z**2 / (4 * samples**2))
    return Estimate(rate, max(center - half, 0.0), min(center + half, 1.0))


def estimate_share(present_B: np.ndarray, clusters: Sequence[Hashable]) -> Estimate:
    """The share of True in `present_B`, with Wilson's interval at the effective number of answers.

    Answers to one prompt (one cluster) are alike and count as fewer than they are:
    n_eff = p (1 - p) / Var(p), kept between the number of clusters and of answers. Source: Korn and Graubard
    1998, "Confidence intervals for proportions with small expected number of positive counts".
    """
    present_B = np.asarray(present_B, dtype=float)
    rate, means_C = float(present_B.mean()), by_cluster(present_B, clusters)
    effective = float(len(means_C))
    if len(means_C) > 1 and 0 < rate < 1:
        variance = float(means_C.var(ddof=1)) / len(means_C)
        effective = rate * (1 - rate) / max(variance, 1e-12)
    return wilson_interval(rate, min(max(effective, len(means_C)), len(present_B)))


def estimate_defects(present: Mapping[str, Sequence[bool]], clusters: Sequence[Hashable]) -> dict[str, Estimate]:
    """The share of answers with each defect; `present[name]` has one entry for each answer."""
    return {name: estimate_share(np.asarray(shown), clusters) for name, shown in present.items()}


def is_inferior(
    rate: float, reference: float, answers: int, margin: float = NON_INFERIORITY, alpha: float = 0.05
) -> bool:
    """True where the defect is more frequent than the reference's by more than `margin`, at level `alpha`.

    One-sided; standard error of two independent shares of `answers` answers each, with one more success and
    one more failure in each (Agresti and Caffo 2000), so that shares of 0 and 1 are not taken for certain.
    """
    size = answers + 2
    shares = [(share * answers + 1) / size for share in (rate, reference)]
    error = sqrt(sum(share * (1 - share) / size for share in shares))
    return shares[0] - shares[1] - NormalDist().inv_cdf(1 - alpha) * error > margin


def find_defects(world: World, completions: Sequence[Completion]) -> dict[str, np.ndarray]:
    """Which completions have which defect, by the gold judge of `world`: bool arrays of B."""
    verdicts = [judge(world, completion.prompt, completion.text) for completion in completions]
    return {defect: np.array([found.has(defect) for found in verdicts]) for defect in DEFECTS}
