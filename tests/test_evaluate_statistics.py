"""Intervals, decisions and stop rules against simulation, enumeration and closed forms (T7.3 to T7.7)."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pytest
from scipy import stats

from rewardloop.evaluate.convergence import reason_to_stop
from rewardloop.evaluate.defects import estimate_defects, estimate_share, is_inferior, wilson_interval
from rewardloop.evaluate.facts import multiple_choice
from rewardloop.evaluate.over_optimization import (
    estimate_best_of_n,
    estimate_slope,
    is_gamed,
    student_quantile,
)
from rewardloop.evaluate.sentences import say
from rewardloop.evaluate.winrate import (
    both_orders,
    by_cluster,
    confidence_sequence,
    e_process,
    first_decision,
    win_outcomes,
    win_rate_interval,
)
from rewardloop.evaluate.words import load_words
from rewardloop.reward.calibration import estimate_mean

# ---------------------------------------------------------------- win rate


def test_outcomes_count_a_tie_as_half() -> None:
    assert win_outcomes(np.array([1.0, 2.0, 0.0]), np.array([0.0, 2.0, 5.0])).tolist() == [1.0, 0.5, 0.0]


def test_both_orders_remove_the_side_bias() -> None:
    """A judge who always takes the first text says nothing about the policies."""
    assert both_orders(np.array([1.0, 1.0]), np.array([0.0, 1.0])).tolist() == [0.5, 1.0]


def test_answers_to_one_prompt_are_one_judgment() -> None:
    assert by_cluster(np.array([1.0, 0.0, 0.5]), ["b", "a", "b"]).tolist() == [0.75, 0.0]


def test_evidence_by_hand() -> None:
    # one win: mean of 1.1, 1.2, 1.4, 1.8; then a loss: mean of 1 - l^2 for 2*l*(1/2) = l
    wealth = e_process(np.array([1.0, 0.0]))
    assert wealth[0] == pytest.approx(1.375)
    assert wealth[1] == pytest.approx((0.99 + 0.96 + 0.84 + 0.36) / 4)


@pytest.mark.parametrize("tie_share", [0.0, 0.3])
def test_equal_policies_are_promoted_at_most_alpha_of_the_time(tie_share: float) -> None:
    """T7.3: 4000 equal policies, looked at after each of 1000 judgments; the usual rule fails, not ours."""
    rng = np.random.default_rng(0)
    promoted = naive = uncovered = 0
    for _ in range(4000):
        outcomes_N = np.where(rng.random(1000) < tie_share, 0.5, rng.integers(0, 2, 1000))
        promoted += first_decision(outcomes_N) is not None
        naive += _naive_rule_promotes(outcomes_N)
        low_N, high_N = confidence_sequence(outcomes_N)
        uncovered += bool(((low_N > 0.5) | (high_N < 0.5)).any())
    assert promoted / 4000 <= 0.05
    assert uncovered / 3000 <= 0.05
    if tie_share == 0:
        assert naive / 4000 >= 0.25  # looked at from the 20th judgment on
        assert promoted / 4000 > 0.02  # and ours is not simply deaf


def _naive_rule_promotes(outcomes_N: np.ndarray) -> bool:
    n_N = np.arange(20, len(outcomes_N) + 1)
    mean_N = (outcomes_N.cumsum() / np.arange(1, len(outcomes_N) + 1))[19:]
    return bool((mean_N - 1.645 * 0.5 / np.sqrt(n_N) > 0.5).any())


def test_a_better_policy_is_found_after_some_150_judgments() -> None:
    rng = np.random.default_rng(1)
    found = [first_decision((rng.random(2000) < 0.6).astype(float)) or 2000 for _ in range(400)]
    assert 100 < np.median(found) < 220


def test_win_rate_interval_holds_its_rate_and_narrows() -> None:
    outcomes_N = np.array([1.0, 0.0, 1.0, 1.0] * 100)
    rate, low, high = win_rate_interval(outcomes_N)
    _, few_low, few_high = win_rate_interval(outcomes_N[:40])
    assert rate == 0.75
    assert 0 <= few_low < low < 0.75 < high < few_high <= 1


# ---------------------------------------------------------------- intervals


def test_bootstrap_by_prompt_covers() -> None:
    """T7.4: eight alike answers to each of 60 prompts; forgetting which belong together covers too seldom."""
    rng = np.random.default_rng(2)
    prompts = np.repeat(np.arange(60), 8).tolist()
    covered = forgotten = 0
    for repeat in range(300):
        gains_B = np.repeat(rng.normal(0.3, 0.5, 60), 8) + rng.normal(0, 0.5, 480)
        ours = estimate_mean(gains_B, prompts, seed=repeat)
        covered += ours.low <= 0.3 <= ours.high
        error = gains_B.std() / np.sqrt(480)
        forgotten += abs(gains_B.mean() - 0.3) <= 1.96 * error
    assert 0.93 <= covered / 300 <= 0.97
    assert forgotten / 300 < 0.75


@pytest.mark.parametrize(("rate", "samples"), [(0.0, 50), (0.3, 100), (0.98, 400)])
def test_wilson_equals_scipy(rate: float, samples: int) -> None:
    theirs = stats.binomtest(round(rate * samples), samples).proportion_ci(method="wilson")
    ours = wilson_interval(rate, samples)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_shares_of_alike_answers_cover() -> None:
    rng = np.random.default_rng(3)
    prompts = np.repeat(np.arange(80), 5).tolist()
    covered = forgotten = 0
    for _ in range(1000):
        present_B = rng.random(400) < np.repeat(rng.beta(0.6, 1.4, 80), 5)  # mean .3, strongly clustered
        ours = estimate_share(present_B, prompts)
        covered += ours.low <= 0.3 <= ours.high
        plain = wilson_interval(float(present_B.mean()), 400)
        forgotten += plain.low <= 0.3 <= plain.high
    assert 0.93 <= covered / 1000 <= 0.97
    assert forgotten / 1000 < 0.9


def test_a_defect_that_was_never_seen_may_still_exist() -> None:
    shares = estimate_defects({"rudeness": [False] * 50}, list(range(50)))
    assert shares["rudeness"].low == 0
    assert 0.05 < shares["rudeness"].high < 0.1


def test_inferiority_needs_evidence_beyond_the_margin() -> None:
    assert is_inferior(0.40, 0.25, answers=200)
    assert not is_inferior(0.40, 0.25, answers=20)  # too few
    assert not is_inferior(0.262, 0.25, answers=20_000)  # certain, but within two points
    rng = np.random.default_rng(4)
    shares_R2 = rng.binomial(150, (0.32, 0.30), size=(4000, 2)) / 150  # worse by exactly the margin
    assert np.mean([is_inferior(after, before, 150) for after, before in shares_R2]) <= 0.06


# ---------------------------------------------------------------- slopes and best of n


@pytest.mark.parametrize("freedom", [2, 3, 6, 30])
@pytest.mark.parametrize("probability", [0.9, 0.95, 0.975])
def test_student_quantile(probability: float, freedom: int) -> None:
    tolerance = 0.15 if (freedom, probability) == (2, 0.975) else 0.04
    assert student_quantile(probability, freedom) == pytest.approx(stats.t.ppf(probability, freedom), abs=tolerance)


def test_slope_and_bounds_equal_scipy() -> None:
    rng = np.random.default_rng(5)
    x_N = np.arange(12.0)
    y_N = 0.3 * x_N + rng.normal(size=12)
    theirs = stats.linregress(x_N, y_N)
    ours = estimate_slope(x_N.tolist(), y_N.tolist())
    assert ours.value == pytest.approx(theirs.slope)
    assert ours.high - ours.value == pytest.approx(stats.t.ppf(0.95, 10) * theirs.stderr, rel=1e-3)


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_best_of_n_equals_the_mean_over_all_subsets(n: int) -> None:
    """T7.6, ties in the proxy shared evenly."""
    rng = np.random.default_rng(6)
    gold_N, proxy_N = rng.normal(size=7), np.array([0.0, 1, 1, 2, 3, 3, 3])
    subsets = []
    for chosen in combinations(range(7), n):
        top = max(proxy_N[i] for i in chosen)
        subsets.append(np.mean([gold_N[i] for i in chosen if proxy_N[i] == top]))
    ours = estimate_best_of_n(gold_N, proxy_N, n)
    assert ours == pytest.approx(float(np.mean(subsets)), abs=1e-12)


def test_multiple_choice_is_shift_invariant() -> None:
    """T7.5; probabilities by hand: true .3 + .1 against false .2 + .2, all doubled."""
    true, false = np.log([0.6, 0.2]), np.log([0.4, 0.4])
    assert multiple_choice(true, false) == (1.0, pytest.approx(0.5))
    assert multiple_choice(true - 900, false - 900) == (1.0, pytest.approx(0.5, abs=1e-12))
    assert multiple_choice(np.log([0.1]), np.log([0.9])) == (0.0, pytest.approx(0.1))


# ---------------------------------------------------------------- when to stop


def test_stop_fires_after_the_peak_of_gold() -> None:
    """T7.7 on a world like E3: all 46,656 texts of 6 letters out of 6, exact policies exp(R_proxy / beta)."""
    for seed in (0, 1, 3, 4, 5):  # world 2 has a letter worth repeating: no peak
        kl_N, proxy_N, gold_N = _gibbs_path(seed)
        peak, stop = int(gold_N.argmax()), _first_stop(kl_N, proxy_N, gold_N, seed)
        assert 3 < peak < len(gold_N) - 6, "the world must have a peak inside"
        assert stop is not None
        assert stop > peak


def test_stop_does_not_fire_while_gold_rises() -> None:
    false_alarms = 0
    for seed in range(100):
        steps_N = np.arange(12.0)
        false_alarms += _first_stop(steps_N, steps_N, 0.1 * steps_N, seed) is not None
    assert false_alarms <= 3


def test_a_flat_judge_is_not_called_a_fall() -> None:
    """Where gold does not move, its noise may raise the alarm at the level of the bound, no more."""
    rng = np.random.default_rng(7)
    steps = list(range(6))
    alarms = np.mean([is_gamed(steps, steps, rng.normal(size=6).tolist()) for _ in range(2000)])
    assert 0.03 < alarms < 0.07


def _gibbs_path(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """KL, proxy and gold of pi ~ exp(proxy / beta) for falling beta; uniform reference.

    Gold: every letter has a worth, and a letter said twice in a row costs. The proxy sees the letters alone:
    at first it is right to say the good ones more often, then the policy says nothing else.
    """
    rng = np.random.default_rng(seed)
    texts_NT = np.array(list(product(range(6), repeat=6)))
    counts_N6 = np.eye(6)[texts_NT].sum(1)
    repeats_N = (texts_NT[:, 1:] == texts_NT[:, :-1]).sum(1)
    gold_N = counts_N6 @ rng.normal(size=6) - 3 * repeats_N
    gold_N = (gold_N - gold_N.mean()) / gold_N.std()
    rated = rng.choice(len(texts_NT), 60, replace=False)
    features, target = counts_N6[rated], gold_N[rated] + rng.normal(0, 0.5, 60)
    proxy_N = counts_N6 @ np.linalg.solve(features.T @ features + np.eye(6), features.T @ target)
    path = []
    for inverse_beta in np.linspace(0, 8, 33):
        logits_N = inverse_beta * proxy_N
        policy_N = np.exp(logits_N - logits_N.max())
        policy_N /= policy_N.sum()
        kl = float((policy_N * np.log(np.maximum(policy_N, 1e-300) * len(policy_N))).sum())
        path.append((kl, float(policy_N @ proxy_N), float(policy_N @ gold_N)))
    kl, proxy, gold = np.array(path).T
    return kl, proxy, gold


def _first_stop(steps_N: np.ndarray, proxy_N: np.ndarray, gold_N: np.ndarray, seed: int) -> int | None:
    """The first look at which the rule fires; gold is measured with noise, over a window of six looks."""
    rng = np.random.default_rng(seed)
    seen_N = gold_N + rng.normal(0, 0.02, len(gold_N))
    for last in range(6, len(gold_N) + 1):
        window = slice(last - 6, last)
        if is_gamed(steps_N[window].tolist(), proxy_N[window].tolist(), seen_N[window].tolist()):
            return last - 1
    return None


def _points(**columns: list[float]) -> list[dict[str, float]]:
    size = len(next(iter(columns.values())))
    base = [{"loop/iteration": float(i), "loop/events": 100.0} for i in range(size)]
    return [
        point | {name.replace("__", "/"): column[i] for name, column in columns.items()} for i, point in enumerate(base)
    ]


def _reason(points: list[dict[str, float]]) -> str:
    reason = reason_to_stop(points, target_kl=6.0, answers=200)
    return say(reason, load_words("en")) if reason else ""


def test_each_reason_to_stop() -> None:
    rising = [0.5, 0.55, 0.61, 0.64, 0.7, 0.75]
    assert _reason(_points(held_out__win_rate=rising)) == ""
    assert "converged" in _reason(_points(held_out__win_rate=[0.5, 0.7, 0.7, 0.701, 0.7, 0.7]))
    assert "KL budget" in _reason(_points(held_out__win_rate=rising, policy__kl=[0, 1, 3, 6, 9, 12.5]))
    assert "rudeness" in _reason(_points(held_out__win_rate=rising, held_out__rudeness=[0.2] * 5 + [0.4]))
    assert "heads" in _reason(_points(held_out__win_rate=rising, reward__disagreement=[0.1] * 5 + [0.4]))
    gamed = _points(
        held_out__win_rate=rising,
        held_out__proxy=[0.0, 1, 2, 3, 4, 5],
        held_out__reward=[1.0, 0.95, 0.83, 0.7, 0.62, 0.5],
    )
    assert "over-optimization" in _reason(gamed)


def test_convergence_belongs_to_one_reward() -> None:
    """Flat before the last feedback arrived says nothing about what the new reward will bring."""
    points = _points(held_out__win_rate=[0.5, 0.7, 0.7, 0.701, 0.7, 0.7])
    points[-1]["loop/events"] = 125.0
    assert _reason(points) == ""
    assert reason_to_stop(points[:1], target_kl=6.0, answers=10) is None
