"""Who wins, and how sure that is however often one looks.

A run is looked at after every round. The usual 95 % rule, asked each time, calls an equal policy better in a
third of all runs. The e-process and the confidence sequence here hold at every look at once.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Final

import numpy as np

BETS: Final = (0.1, 0.2, 0.4, 0.8)  # shares of the stake; the mixture is near the best one for any win rate
RHO: Final = 0.02  # where the confidence sequence is narrowest: some 100 to 500 judgments


def win_outcomes(scores_B: np.ndarray, other_B: np.ndarray) -> np.ndarray:
    """1 where `scores_B` is higher, 0 where it is lower, 1/2 for a tie."""
    outcomes_B: np.ndarray = (np.sign(scores_B - other_B) + 1) / 2
    return outcomes_B


def both_orders(first_shown_B: np.ndarray, second_shown_B: np.ndarray) -> np.ndarray:
    """The outcome without the side bias of the judge: the mean of what was said in the two orders.

    Args:
        first_shown_B: share of the win (0, 1/2, 1) that went to the candidate when it was shown first.
        second_shown_B: the same when it was shown second.
    """
    outcomes_B: np.ndarray = (first_shown_B + second_shown_B) / 2
    return outcomes_B


def by_cluster(values_B: np.ndarray, clusters: Sequence[Hashable]) -> np.ndarray:
    """Mean of the values of each cluster (all answers to one prompt), in order of first appearance.

    Answers to one prompt are alike: the prompt is the judgment that counts, not the answer.
    """
    numbers = {name: number for number, name in enumerate(dict.fromkeys(clusters))}
    member_B = np.array([numbers[name] for name in clusters], dtype=np.int64)
    return np.bincount(member_B, weights=values_B) / np.bincount(member_B)


def e_process(outcomes_N: np.ndarray, null: float = 0.5) -> np.ndarray:
    """Evidence K_n after each judgment against "the win rate is `null` or less".

        K_n = mean over lambda in {.1, .2, .4, .8} of prod_{i<=n} (1 + 2 lambda (x_i - null))

    The wealth of a gambler who starts with 1 and bets against the null; P(K_n ever reaches 1/alpha) <= alpha.
    Outcomes lie in [0, 1], in the order judged; `null` is at most 1/2: no bet can lose more than the stake.
    Source: Waudby-Smith and Ramdas 2010.09686.
    """
    evidence_N: np.ndarray = np.exp(log_wealth(outcomes_N, null)).mean(-1)
    return evidence_N


def log_wealth(outcomes_N: np.ndarray, null: float = 0.5) -> np.ndarray:
    """Log of what each of the BETS has come to after each judgment, [N, L]; see `e_process`.

    What was won on one candidate may be staked on the next: the sum tests "not one of them is better".
    """
    assert 0 <= null <= 0.5, null
    log_wealth_NL: np.ndarray = np.log1p(2 * np.array(BETS) * (outcomes_N[:, None] - null)).cumsum(0)
    return log_wealth_NL


def first_decision(outcomes_N: np.ndarray, alpha: float = 0.05) -> int | None:
    """Number of judgments after which the candidate is better at level `alpha`; None if it is not decided."""
    decided_N = e_process(outcomes_N) >= 1 / alpha
    return int(decided_N.argmax()) + 1 if decided_N.any() else None


def confidence_sequence(outcomes_N: np.ndarray, alpha: float = 0.05) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper bound of the win rate after each judgment; all of them hold at once with 1 - alpha.

        m_n +- 1/2 sqrt(2 (n rho + 1) / (n^2 rho) log(sqrt(n rho + 1) / alpha)),  rho = .02

    Outcomes in [0, 1] are sub-Gaussian with standard deviation 1/2. Source: Howard et al. 1810.08240.
    """
    n_N = np.arange(1, len(outcomes_N) + 1)
    mean_N = outcomes_N.cumsum() / n_N
    widened_N = n_N * RHO + 1
    half_N = 0.5 * np.sqrt(2 * widened_N / (n_N**2 * RHO) * np.log(np.sqrt(widened_N) / alpha))
    return np.clip(mean_N - half_N, 0, 1), np.clip(mean_N + half_N, 0, 1)


def win_rate_interval(outcomes_N: np.ndarray, alpha: float = 0.05) -> tuple[float, float, float]:
    """Win rate, lower and upper bound after all judgments, valid at every look; one outcome per prompt."""
    low_N, high_N = confidence_sequence(outcomes_N, alpha)
    return float(outcomes_N.mean()), float(low_N[-1]), float(high_N[-1])
