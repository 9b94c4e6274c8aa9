"""Baselines, scales, ratios, surrogates, divergences: by hand, against slow loops, in every quadrant."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from rewardloop.errors import ConfigError
from rewardloop.functional.advantages import (
    compute_baseline,
    compute_scale,
    flat_groups,
    group_mean,
    group_std,
    leave_one_out,
    update_running_mean,
)
from rewardloop.functional.divergences import (
    adapt_beta,
    exact_kl,
    full_divergence,
    sequence_divergence,
    token_divergence,
)
from rewardloop.functional.losses import (
    Bound,
    Clip,
    Mask,
    Truncate,
    aggregation_weights,
    surrogate,
    value_loss,
)
from rewardloop.functional.ratios import Level, correction_weights, effective_share, level_log_ratio

MASK_BT = torch.tensor([[True, True, True], [True, True, False]])
ONE = torch.ones(1, 1, dtype=torch.bool)


# ---------------------------------------------------------------- baselines and scales


def test_leave_one_out_by_hand() -> None:
    values_B = torch.tensor([1.0, 2.0, 6.0, 10.0, 20.0])
    groups_B = torch.tensor([7, 7, 7, 2, 2])
    # Group 7: (2+6)/2, (1+6)/2, (1+2)/2. Group 2: each the other.
    assert leave_one_out(values_B, groups_B).tolist() == [4.0, 3.5, 1.5, 20.0, 10.0]
    assert group_mean(values_B, groups_B).tolist() == [3.0, 3.0, 3.0, 15.0, 15.0]


def test_group_std_equals_the_library() -> None:
    values_B = torch.tensor([1.0, 2.0, 6.0, 10.0, 20.0], dtype=torch.float64)
    groups_B = torch.tensor([0, 0, 0, 1, 1])
    expected = [float(values_B[:3].std())] * 3 + [float(values_B[3:].std())] * 2
    assert group_std(values_B, groups_B).tolist() == pytest.approx(expected)


def test_a_group_of_one_has_no_siblings() -> None:
    with pytest.raises(ConfigError, match="group_size"):
        leave_one_out(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0, 0, 1]))


def test_flat_groups() -> None:
    values_B = torch.tensor([2.0, 2.0, 1.0, 1.5, 3e7, 3e7])
    groups_B = torch.tensor([0, 0, 1, 1, 2, 2])
    assert flat_groups(values_B, groups_B).tolist() == [True, True, False, False, True, True]


def test_positional_baseline_holds_the_last_value_of_a_sibling() -> None:
    returns_BT = torch.tensor([[5.0, 6.0, 7.0], [1.0, 2.0, 0.0], [3.0, 0.0, 0.0]])
    mask_BT = torch.tensor([[True, True, True], [True, True, False], [True, False, False]])
    baseline_BT = compute_baseline("loo_pos", returns_BT, mask_BT, torch.tensor([0, 0, 0]))
    # Position 0: (1+3)/2, (5+3)/2, (5+1)/2. Position 1: (2+3)/2, (6+3)/2. Position 2: (2+3)/2.
    assert baseline_BT[0].tolist() == [2.0, 2.5, 2.5]
    assert baseline_BT[1, :2].tolist() == [4.0, 4.5]
    assert baseline_BT[2, :1].tolist() == [3.0]


def test_running_mean() -> None:
    returns_BT = torch.tensor([[1.0, 9.0], [3.0, 9.0]])
    assert update_running_mean(1.0, returns_BT) == pytest.approx(0.9 * 1.0 + 0.1 * 2.0)
    baseline = compute_baseline("ema", returns_BT, MASK_BT[:, :2], torch.tensor([0, 1]), running_mean=1.5)
    assert baseline.tolist() == [[1.5], [1.5]]


def test_batch_std_equals_the_library_on_used_tokens() -> None:
    advantages_BT = torch.tensor([[1.0, -2.0, 3.0], [5.0, 0.5, 0.0]], dtype=torch.float64)
    ones_B = torch.ones(2, dtype=torch.float64)
    groups_B = torch.tensor([0, 1])
    given = compute_scale("batch_std", advantages_BT, advantages_BT, MASK_BT, groups_B, ones_B)
    assert float(given) == pytest.approx(float(advantages_BT[MASK_BT].std(correction=0)), abs=2e-6)
    # A weight of 2 is the same as having the sequence twice.
    weighted = compute_scale(
        "batch_std", advantages_BT, advantages_BT, MASK_BT, groups_B, torch.tensor([2.0, 1.0]).double()
    )
    twice_BT = advantages_BT[[0, 0, 1]]
    expected = twice_BT[MASK_BT[[0, 0, 1]]].std(correction=0)
    assert float(weighted) == pytest.approx(float(expected), abs=2e-6)


# ---------------------------------------------------------------- ratios


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        ("none", [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]),
        ("token", [[1.0, 2.0, 6.0], [4.0, 8.0, 0.0]]),
        ("prefix", [[1.0, 3.0, 9.0], [4.0, 12.0, 0.0]]),
        ("sequence", [[9.0, 9.0, 9.0], [12.0, 12.0, 0.0]]),
        ("geomean", [[3.0, 3.0, 3.0], [6.0, 6.0, 0.0]]),
    ],
)
def test_levels_by_hand(level: Level, expected: list[list[float]]) -> None:
    log_ratio_BT = torch.tensor([[1.0, 2.0, 6.0], [4.0, 8.0, float("nan")]])
    torch.testing.assert_close(level_log_ratio(level, log_ratio_BT, MASK_BT), torch.tensor(expected))


def test_correction_is_capped_and_carries_no_gradient() -> None:
    proximal_BT = torch.tensor([[math.log(0.9), math.log(0.3), -1.0]], requires_grad=True)
    old_BT = torch.tensor([[math.log(0.3), math.log(0.6), -1.0]])
    weights_BT = correction_weights(proximal_BT, old_BT, MASK_BT[:1], cap=2.0)
    assert weights_BT[0].tolist() == pytest.approx([2.0, 0.5, 1.0])
    assert not weights_BT.requires_grad


def test_effective_share() -> None:
    assert effective_share(torch.full((8,), 3.0)) == pytest.approx(1.0)
    # Weights 1 and 3: (1+3)^2 / (2 * (1+9)) = 0.8.
    assert effective_share(torch.tensor([0.0, math.log(3.0)])) == pytest.approx(0.8)
    assert effective_share(torch.tensor([0.0, -1e9, -1e9, -1e9])) == pytest.approx(0.25)
    assert effective_share(torch.tensor([1000.0, 1000.0])) == pytest.approx(1.0)


# ---------------------------------------------------------------- surrogates


def one_token(ratio: float, advantage: float, bound: Bound, level: Level = "token") -> tuple[float, float, bool]:
    """Value, gradient with respect to the log-prob, and whether the bound acted, of a single token."""
    logprob = torch.tensor([[math.log(0.1) + math.log(ratio)]], dtype=torch.float64, requires_grad=True)
    anchor = torch.tensor([[math.log(0.1)]], dtype=torch.float64)
    values, acted = surrogate(logprob, anchor, torch.tensor([[advantage]]).double(), ONE, level=level, bound=bound)
    (gradient,) = torch.autograd.grad(values.sum(), logprob)
    return float(values.detach()), float(gradient), bool(acted)


@pytest.mark.parametrize(
    ("ratio", "advantage", "value", "gradient", "acted"),
    [
        (1.0, 2.0, 2.0, 2.0, False),
        (1.1, 2.0, 2.2, 2.2, False),
        (1.5, 2.0, 2.4, 0.0, True),  # good and far: no more
        (0.5, 2.0, 1.0, 1.0, False),  # good but fallen behind: come back
        (0.5, -2.0, -1.6, 0.0, True),  # bad and far away: no more
        (1.5, -2.0, -3.0, -3.0, False),  # bad but grown: come back
        (3.5, -2.0, -6.0, 0.0, True),  # dual clip at 3
    ],
)
def test_ppo_quadrants(ratio: float, advantage: float, value: float, gradient: float, acted: bool) -> None:
    """T2.9: clip at .2 on both sides."""
    assert one_token(ratio, advantage, Clip()) == (pytest.approx(value), pytest.approx(gradient), acted)


def test_without_dual_clip_a_bad_token_may_cost_any_amount() -> None:
    assert one_token(3.5, -2.0, Clip(dual=None))[:2] == (pytest.approx(-7.0), pytest.approx(-7.0))


def test_unequal_clip() -> None:
    assert one_token(1.25, 1.0, Clip(low=0.2, high=0.28))[1] == pytest.approx(1.25)
    assert one_token(1.3, 1.0, Clip(low=0.2, high=0.28))[1] == 0.0
    assert one_token(0.75, -1.0, Clip(low=0.2, high=0.28))[1] == 0.0


@pytest.mark.parametrize(("ratio", "advantage"), [(1.5, 2.0), (0.5, -2.0), (3.5, -2.0)])
def test_cispo_keeps_the_gradient_where_ppo_drops_it(ratio: float, advantage: float) -> None:
    """T2.9: gradient min(u, cap) * A, never 0."""
    assert one_token(ratio, advantage, Clip())[1] == 0.0
    assert one_token(ratio, advantage, Truncate(1.28))[1] == pytest.approx(min(ratio, 1.28) * advantage)


def test_mask_leaves_far_tokens_out_on_both_sides() -> None:
    bound = Mask(low=0.5, high=2.0)
    for advantage in (1.0, -1.0):
        assert one_token(0.4, advantage, bound) == (0.0, 0.0, True)
        assert one_token(2.1, advantage, bound) == (0.0, 0.0, True)
        assert one_token(1.9, advantage, bound)[1] == pytest.approx(1.9 * advantage)


def test_no_ratio_is_the_score_function() -> None:
    assert one_token(5.0, 2.0, None, level="none")[1] == pytest.approx(2.0)
    assert one_token(5.0, 2.0, None)[1] == pytest.approx(10.0)


def test_gradient_agrees_with_finite_differences() -> None:
    """The token level, where value and gradient belong together, all bounds with a gradient of their own."""
    generator = torch.Generator().manual_seed(0)
    anchor_BT, advantages_BT = (torch.randn(2, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    logprobs_BT = anchor_BT + 0.5 * torch.randn(2, 3, generator=generator, dtype=torch.float64)
    for bound in (None, Clip(), Mask(0.7, 1.5)):

        def total(leaf_BT: Tensor, bound: Bound = bound, frozen: Tensor = anchor_BT) -> Tensor:
            return surrogate(leaf_BT, frozen, advantages_BT, MASK_BT, level="token", bound=bound)[0].sum()

        assert torch.autograd.gradcheck(total, logprobs_BT.clone().requires_grad_())


def test_pads_reach_neither_value_nor_gradient() -> None:
    logprobs_BT = torch.full((2, 3), -1.0)
    logprobs_BT[1, 2] = float("-inf")
    leaf_BT = logprobs_BT.requires_grad_()
    values_BT, acted_BT = surrogate(
        leaf_BT, torch.full((2, 3), -1.0), torch.full((2, 3), 2.0), MASK_BT, level="sequence", bound=Clip()
    )
    (gradient_BT,) = torch.autograd.grad(values_BT.sum(), leaf_BT)
    assert values_BT.tolist() == [[2.0] * 3, [2.0, 2.0, 0.0]]
    assert gradient_BT.tolist() == [[2.0] * 3, [2.0, 2.0, 0.0]]
    assert not acted_BT.any()


@pytest.mark.parametrize(
    "make",
    [lambda: Clip(low=-0.1), lambda: Clip(dual=0.5), lambda: Truncate(0.0), lambda: Mask(low=1.5, high=2.0)],
)
def test_bounds_check_their_numbers(make: object) -> None:
    with pytest.raises(ConfigError, match="expected"):
        make()  # type: ignore[operator]


def test_aggregation_by_hand() -> None:
    weights_B = torch.tensor([0.5, 0.5])
    assert aggregation_weights("sum", MASK_BT, weights_B, 10.0).tolist() == pytest.approx([0.05, 0.05])
    assert aggregation_weights("token_mean", MASK_BT, weights_B).tolist() == pytest.approx([0.2, 0.2])
    assert aggregation_weights("seq_mean", MASK_BT, weights_B).tolist() == pytest.approx([1 / 6, 1 / 4])


def test_value_loss_by_hand() -> None:
    values_BT = torch.tensor([[1.0, 0.0]], requires_grad=True)
    old_BT, returns_BT = torch.tensor([[0.5, 0.0]]), torch.tensor([[2.0, 1.0]])
    mask_BT = torch.ones(1, 2, dtype=torch.bool)
    # Token 0: (1-2)^2 = 1, clipped to .7: (.7-2)^2 = 1.69, the larger. Token 1: 1 both ways.
    loss = value_loss(values_BT, old_BT, returns_BT, mask_BT, torch.tensor([1.0]))
    assert float(loss.detach()) == pytest.approx(0.5 * (1.69 + 1.0))
    (gradient_BT,) = torch.autograd.grad(loss, values_BT)
    assert gradient_BT[0].tolist() == pytest.approx([0.0, -1.0])
    free = value_loss(values_BT, old_BT, returns_BT, mask_BT, torch.tensor([1.0]), clip=None)
    assert float(free.detach()) == pytest.approx(0.5 * 2.0)


# ---------------------------------------------------------------- divergences


def test_estimates_are_unbiased_and_k3_never_negative() -> None:
    """E_pi[k1] = E_pi[k3] = KL, on a distribution of four; k2 is close, and not equal."""
    log_p = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64).log()
    log_q = torch.tensor([0.3, 0.2, 0.3, 0.2], dtype=torch.float64).log()
    kl = float(exact_kl(log_p, log_q))
    estimates = {kind: token_divergence(kind, log_p - log_q) for kind in ("k1", "k2", "k3")}
    means = {kind: float((log_p.exp() * values).sum()) for kind, values in estimates.items()}
    assert means["k1"] == pytest.approx(kl, abs=1e-12)
    assert means["k3"] == pytest.approx(kl, abs=1e-12)
    assert means["k2"] != pytest.approx(kl, rel=0.01)
    assert float(estimates["k3"].min()) >= 0 > float(estimates["k1"].min())
    assert float(full_divergence(log_p[None, None], log_q[None, None])) == pytest.approx(kl, abs=1e-12)


def test_sequence_divergences_by_hand() -> None:
    log_ratio_BT = torch.tensor([[1.0, -2.0, 3.0], [2.0, 2.0, float("nan")]])
    assert sequence_divergence("k1", log_ratio_BT, MASK_BT).tolist() == [2.0, 4.0]
    assert sequence_divergence("k2", log_ratio_BT, MASK_BT).tolist() == [7.0, 4.0]
    assert sequence_divergence("k2_seq", log_ratio_BT, MASK_BT).tolist() == [2.0, 8.0]
    expected = [math.exp(-2) - 1 + 2, math.exp(-4) - 1 + 4]
    assert sequence_divergence("k3_seq", log_ratio_BT, MASK_BT).tolist() == pytest.approx(expected)
    with pytest.raises(ValueError, match="full_divergence"):
        sequence_divergence("full", log_ratio_BT, MASK_BT)


def test_beta_falls_slowly_below_the_target() -> None:
    assert adapt_beta(0.1, kl=6.0, target=6.0, samples=64) == 0.1
    assert adapt_beta(0.1, kl=0.0, target=6.0, samples=100) == pytest.approx(0.1 * 0.998)
    assert adapt_beta(0.1, kl=5.4, target=6.0, samples=100) == pytest.approx(0.1 * 0.999)


def test_beta_brings_a_policy_that_goes_too_far_back_to_the_target() -> None:
    """The mean of N(t, 1) climbs R(x) = x under beta KL = beta t^2 / 2: fixed betas end at 1 / (2 beta^2)."""

    def climb(rate: float, adaptive: bool) -> list[float]:
        mean, beta, distances = 0.0, 0.1, []
        for _ in range(200):
            mean += rate * (1 - beta * mean)
            distances.append(mean**2 / 2)
            beta = adapt_beta(beta, distances[-1], 6.0, 64) if adaptive else beta
        return distances

    for rate in (0.1, 0.3, 0.6):
        assert climb(rate, adaptive=False)[-1] > 35
        held = climb(rate, adaptive=True)
        assert max(held) < 9
        assert 3 < held[-1] < 6.5
