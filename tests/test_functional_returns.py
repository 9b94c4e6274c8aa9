"""Immediate rewards and returns: adapted, anchored, against slow loops and by hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rewardloop.functional.masks import check_right_padded, last_token_mask, masked_mean, masked_sum
from rewardloop.functional.returns import (
    gae,
    rewards_to_go,
    sequence_returns,
    terminal_rewards,
    token_rewards,
)
from rewardloop.sandbox.toylm import Texts
from toy_worlds import World

TRUE_FALSE = torch.tensor([[True, True, True], [True, False, False]])


def random_batch(seed: int, batch: int = 6, longest: int = 7) -> tuple[Tensor, Tensor, Tensor]:
    """phi_BT1, scores_B and a mask of lengths 1 ... longest; phi behind the end is rubbish on purpose."""
    generator = torch.Generator().manual_seed(seed)
    lengths_B = torch.randint(1, longest + 1, (batch,), generator=generator)
    lengths_B[0], lengths_B[1] = 1, longest
    mask_BT = torch.arange(longest) < lengths_B[:, None]
    phi_BT1 = torch.randn(batch, longest + 1, generator=generator, dtype=torch.float64)
    beyond_BT1 = torch.arange(longest + 1) > lengths_B[:, None]
    phi_BT1[beyond_BT1] = float("nan")
    return phi_BT1, torch.randn(batch, generator=generator, dtype=torch.float64), mask_BT


# ---------------------------------------------------------------- by hand


def test_token_rewards_by_hand() -> None:
    phi_BT1 = torch.tensor([[1.0, 3.0, 2.0, 9.0], [0.5, 9.0, 9.0, 9.0]])
    scores_B = torch.tensor([5.0, -1.0])
    # Row 0: 3-1, 2-3, then R - phi(s_2) = 5-2. Row 1, one token: R - phi(x) = -1-0.5.
    expected = torch.tensor([[2.0, -1.0, 3.0], [-1.5, 0.0, 0.0]])
    torch.testing.assert_close(token_rewards(phi_BT1, scores_B, TRUE_FALSE), expected)


def test_returns_by_hand() -> None:
    rewards_BT = torch.tensor([[1.0, 2.0, 4.0], [3.0, 100.0, 100.0]])
    torch.testing.assert_close(sequence_returns(rewards_BT, TRUE_FALSE), torch.tensor([[7.0] * 3, [3.0, 0.0, 0.0]]))
    torch.testing.assert_close(rewards_to_go(rewards_BT, TRUE_FALSE), torch.tensor([[7.0, 6.0, 4.0], [3.0, 0.0, 0.0]]))
    # gamma 1/2: 4; 2 + 4/2 = 4; 1 + 4/2 = 3.
    torch.testing.assert_close(
        rewards_to_go(rewards_BT, TRUE_FALSE, gamma=0.5), torch.tensor([[3.0, 4.0, 4.0], [3.0, 0.0, 0.0]])
    )


def test_masks_by_hand() -> None:
    assert last_token_mask(TRUE_FALSE).tolist() == [[False, False, True], [True, False, False]]
    values_BT = torch.tensor([[1.0, 2.0, 3.0], [4.0, float("nan"), float("inf")]])
    assert masked_sum(values_BT, TRUE_FALSE).tolist() == [6.0, 4.0]
    assert float(masked_mean(values_BT, TRUE_FALSE)) == 2.5
    assert float(masked_mean(values_BT, torch.zeros_like(TRUE_FALSE))) == 0.0


@pytest.mark.parametrize(
    "mask",
    [[[False, True]], [[False, False]], [[True, True], [False, False]], [[1, 0]]],
)
def test_left_padding_gaps_and_empty_rows_are_refused(mask: list[list[int]]) -> None:
    check_right_padded(TRUE_FALSE)
    with pytest.raises(ValueError, match="completion_mask_BT"):
        check_right_padded(torch.tensor(mask))


# ---------------------------------------------------------------- T1.1 adapted

Credit = Callable[[World, Texts], Tensor]


def of_potential(world: World, texts: Texts) -> Tensor:
    """Ours: a causal head, anchored."""
    return world.scored(texts, [0] * len(texts.mask_BT), phi_S=world.phi_S).rewards_BT


def uniform(world: World, texts: Texts) -> Tensor:
    """R / T to every token."""
    scores_B = world.scores_N[world.lm.numbers(texts)]
    return texts.mask_BT * (scores_B / texts.mask_BT.sum(-1))[:, None]


def attention(world: World, texts: Texts) -> Tensor:
    """ABC: R shared out by attention of the last position, softmax over the whole text."""
    scores_B = world.scores_N[world.lm.numbers(texts)]
    keys_BT = world.phi_S[texts.states_BT].masked_fill(~texts.mask_BT, -torch.inf)
    return scores_B[:, None] * keys_BT.softmax(-1)


def occlusion(world: World, texts: Texts) -> Tensor:
    """SHAP's first order: R of the text minus R of the text with one token changed."""
    rows = []
    for tokens, mask, number in zip(texts.tokens_BT, texts.mask_BT, world.lm.numbers(texts).tolist(), strict=True):
        row = torch.zeros(len(tokens), dtype=torch.float64)
        for t in range(int(mask.sum())):
            other = tokens.clone()[None]
            other[0, t] = (tokens[t] + 1) % world.lm.end if tokens[t] != world.lm.end else 0
            changed_mask = mask[None].clone()
            changed = Texts(other, world.lm.states_of(torch.where(changed_mask, other, -1)), changed_mask)
            row[t] = world.scores_N[number] - world.scores_N[world.lm.numbers(changed) % len(world.scores_N)][0]
        rows.append(row)
    return torch.stack(rows)


def edit_labels(world: World, texts: Texts) -> Tensor:
    """-1 on tokens that a later correction replaced: which ones depends on how the text ended."""
    parity_B = texts.tokens_BT.sum(-1) % 2
    return -(texts.mask_BT & (texts.tokens_BT % 2 == parity_B[:, None])).double()


def violations(credit: Credit) -> int:
    """Over all pairs of texts: positions before the first difference where rewards are not the same bits."""
    world = World.make(3, 3)
    texts = world.lm.texts
    rewards_BT = credit(world, texts)
    marked_BT = torch.where(texts.mask_BT, texts.tokens_BT, -1)
    count = 0
    for i in range(len(marked_BT)):
        same_BT = (marked_BT == marked_BT[i]).cumprod(-1).bool()
        same_BT &= ~same_BT.all(-1, keepdim=True)
        count += int((same_BT & (rewards_BT != rewards_BT[i])).sum())
    return count


def test_rewards_of_a_potential_are_adapted() -> None:
    assert violations(of_potential) == 0


@pytest.mark.parametrize("credit", [uniform, attention, occlusion, edit_labels])
def test_credit_that_knows_the_future_is_found_out(credit: Credit) -> None:
    assert violations(credit) > 10


# ---------------------------------------------------------------- T1.2, T1.3, T1.7 anchored


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000))
def test_rewards_sum_to_the_score(seed: int) -> None:
    """T1.2: one token, the longest, padding with rubbish behind it."""
    phi_BT1, scores_B, mask_BT = random_batch(seed)
    rewards_BT = token_rewards(phi_BT1, scores_B, mask_BT)
    torch.testing.assert_close(rewards_BT.sum(-1) + phi_BT1[:, 0], scores_B, rtol=0, atol=1e-12)
    assert bool((rewards_BT[~mask_BT] == 0).all())


def test_rewards_sum_to_the_score_in_every_text_of_a_world() -> None:
    """T1.2 on texts that end first of all, that end late, and that are cut off."""
    world = World.make(4, 4)
    scored = world.scored(world.lm.texts, [0] * 121, phi_S=world.phi_S)
    sums_B = scored.rewards_BT.sum(-1) + world.phi_S[0]
    torch.testing.assert_close(sums_B, world.scores_N, rtol=0, atol=1e-12)


def test_return_is_score_minus_potential() -> None:
    """T1.3: G_t = R - phi(s_t) at every action."""
    phi_BT1, scores_B, mask_BT = random_batch(3)
    returns_BT = rewards_to_go(token_rewards(phi_BT1, scores_B, mask_BT), mask_BT)
    expected_BT = scores_B[:, None] - phi_BT1[:, :-1]
    torch.testing.assert_close(returns_BT[mask_BT], expected_BT[mask_BT], rtol=0, atol=1e-12)


def test_reward_on_the_pad_is_caught() -> None:
    """T1.7: had R been put one position later, it would lie outside the mask and the sum would miss it."""
    phi_BT1, scores_B, mask_BT = random_batch(5)
    right_BT = terminal_rewards(scores_B, mask_BT)
    mutant_BT = right_BT.roll(1, dims=-1)
    short_B = mask_BT.sum(-1) < mask_BT.shape[1]
    torch.testing.assert_close(masked_sum(right_BT, mask_BT), scores_B)
    assert bool((masked_sum(mutant_BT, mask_BT)[short_B] != scores_B[short_B]).all())
    torch.testing.assert_close(right_BT, token_rewards(torch.zeros_like(phi_BT1), scores_B, mask_BT))


# ---------------------------------------------------------------- T2.4 GAE


def slow_gae(rewards: list[float], values: list[float], gamma: float, gae_lambda: float) -> list[float]:
    """The definition, O(T^2): A_t = sum_l (gamma lambda)^l delta_{t+l}."""
    ahead = [*values[1:], 0.0]
    deltas = [r + gamma * v2 - v for r, v, v2 in zip(rewards, values, ahead, strict=True)]
    return [sum((gamma * gae_lambda) ** (u - t) * deltas[u] for u in range(t, len(deltas))) for t in range(len(deltas))]


@pytest.mark.parametrize(("gamma", "gae_lambda"), [(1.0, 1.0), (1.0, 0.95), (0.9, 0.5), (1.0, 0.0)])
def test_gae_equals_its_definition(gamma: float, gae_lambda: float) -> None:
    phi_BT1, _, mask_BT = random_batch(11)
    rewards_BT = torch.where(mask_BT, torch.randn(mask_BT.shape, generator=torch.Generator().manual_seed(0)), 7.0)
    rewards_BT = rewards_BT.double()
    values_BT = phi_BT1[:, :-1]
    given_BT = gae(rewards_BT, mask_BT, gae_lambda=gae_lambda, values_BT=values_BT, gamma=gamma)
    for row, length in enumerate(mask_BT.sum(-1).tolist()):
        expected = slow_gae(rewards_BT[row, :length].tolist(), values_BT[row, :length].tolist(), gamma, gae_lambda)
        assert given_BT[row, :length].tolist() == pytest.approx(expected, abs=1e-12)
        assert not given_BT[row, length:].any()


@pytest.mark.parametrize("gae_lambda", [1.0, 0.95, 0.5, 0.0])
def test_critic_and_shaped_reward_are_the_same_advantage(gae_lambda: float) -> None:
    """T2.4: (terminal reward, V = phi) = (shaped reward, V = 0); subtracting phi twice is something else."""
    phi_BT1, scores_B, mask_BT = random_batch(2)
    shaped_BT = token_rewards(phi_BT1, scores_B, mask_BT)
    with_critic_BT = gae(terminal_rewards(scores_B, mask_BT), mask_BT, gae_lambda=gae_lambda, values_BT=phi_BT1[:, :-1])
    without_BT = gae(shaped_BT, mask_BT, gae_lambda=gae_lambda)
    torch.testing.assert_close(with_critic_BT, without_BT, rtol=0, atol=1e-12)
    twice_BT = gae(shaped_BT, mask_BT, gae_lambda=gae_lambda, values_BT=phi_BT1[:, :-1])
    assert float((twice_BT - without_BT)[mask_BT].abs().max()) > 0.1


def test_padding_changes_nothing() -> None:
    phi_BT1, scores_B, mask_BT = random_batch(4)
    rewards_BT = token_rewards(phi_BT1, scores_B, mask_BT)
    wider_BT = torch.nn.functional.pad(rewards_BT, (0, 3), value=float("nan"))
    wider_mask_BT = torch.nn.functional.pad(mask_BT, (0, 3))
    assert torch.equal(gae(wider_BT, wider_mask_BT, gae_lambda=0.9)[:, :-3], gae(rewards_BT, mask_BT, gae_lambda=0.9))
