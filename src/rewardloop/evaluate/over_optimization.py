"""Is the policy gaming its reward? Slopes with bounds, and what best-of-n would have reached.

A proxy reward that is optimized hard rises for ever while the truth rises, turns and falls (Gao et al.
2210.10760).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import comb, sqrt
from statistics import NormalDist

import numpy as np

from rewardloop.reward.calibration import Estimate


def estimate_slope(steps_N: Sequence[float], values_N: Sequence[float], alpha: float = 0.05) -> Estimate:
    """Least-squares slope, with one-sided bounds: each holds with 1 - alpha (Student's t, n - 2 degrees).

    Needs four points at least, at two different steps.
    """
    x_N, y_N = np.asarray(steps_N, dtype=float), np.asarray(values_N, dtype=float)
    freedom = len(x_N) - 2
    assert freedom >= 2, "a slope with bounds needs four points"
    x_N = x_N - x_N.mean()
    spread = float(x_N @ x_N)
    slope = float(x_N @ y_N) / spread
    residuals_N = y_N - y_N.mean() - slope * x_N
    margin = student_quantile(1 - alpha, freedom) * sqrt(float(residuals_N @ residuals_N) / freedom / spread)
    return Estimate(slope, slope - margin, slope + margin)


def is_gamed(steps_N: Sequence[float], proxy_N: Sequence[float], gold_N: Sequence[float]) -> bool:
    """True where the proxy rises while the upper bound of the judge's slope is below 0."""
    return estimate_slope(steps_N, proxy_N).value > 0 and estimate_slope(steps_N, gold_N).high < 0


def estimate_best_of_n(gold_N: np.ndarray, chosen_by_N: np.ndarray, n: int) -> float:
    """Expected gold reward of the best of `n` by `chosen_by_N`, unbiased, from N >= n samples of a prompt.

        sum_i C(i-1, n-1) / C(N, n) g_(i),   g_(i) the gold reward of the i-th lowest by `chosen_by_N`

    Equal to the mean over all subsets of size n; ties share their places. Source: Stiennon et al. 2009.01325;
    the estimator is that of pass@k, 2107.03374.
    """
    samples = len(gold_N)
    assert 1 <= n <= samples, f"best of {n} from {samples} samples"
    _, tie_N = np.unique(chosen_by_N, return_inverse=True)
    gold_N = (np.bincount(tie_N, weights=gold_N) / np.bincount(tie_N))[tie_N]
    order_N = np.argsort(chosen_by_N, kind="stable")
    weights = [comb(place - 1, n - 1) / comb(samples, n) for place in range(1, samples + 1)]
    return float(np.array(weights) @ gold_N[order_N])


def student_quantile(probability: float, freedom: int) -> float:
    """Quantile of Student's t, 2 or more degrees of freedom; within .04 for .9 and .95 (.15 for .975).

    Cornish-Fisher expansion around the normal quantile. Source: Abramowitz and Stegun, 26.7.5.
    """
    z, v = NormalDist().inv_cdf(probability), freedom
    terms = (
        (z**3 + z) / (4 * v),
        (5 * z**5 + 16 * z**3 + 3 * z) / (96 * v**2),
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * v**3),
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / (92160 * v**4),
    )
    return z + sum(terms)
