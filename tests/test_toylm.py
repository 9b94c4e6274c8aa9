"""ToyLM against brute force: counts, probabilities, the sampler, the optimum."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from rewardloop.functional.divergences import exact_kl, total_variation
from rewardloop.sandbox.toylm import ToyLM
from toy_worlds import World, autograd


@pytest.mark.parametrize(
    ("vocabulary", "max_tokens", "states", "count"), [(4, 4, 40, 121), (5, 5, 341, 1365), (2, 1, 1, 2)]
)
def test_counts_of_two_small_worlds(vocabulary: int, max_tokens: int, states: int, count: int) -> None:
    lm = ToyLM(vocabulary, max_tokens)
    assert lm.states == states
    assert len(lm.texts.mask_BT) == count
    assert lm.numbers(lm.texts).tolist() == list(range(count))


def test_texts_are_all_that_end_or_are_cut_off() -> None:
    lm = ToyLM(3, 3)
    expected = set()
    for tokens in itertools.product(range(3), repeat=3):
        ending = tokens.index(2) + 1 if 2 in tokens else 3
        expected.add(tokens[:ending])
    given = [tuple(row[mask].tolist()) for row, mask in zip(lm.texts.tokens_BT, lm.texts.mask_BT, strict=True)]
    assert len(given) == len(set(given))
    assert set(given) == expected


def test_states_are_prefixes() -> None:
    """Two positions share a state if and only if what came before them is the same."""
    lm = ToyLM(3, 4)
    prefix_of: dict[int, tuple[int, ...]] = {}
    for tokens, states, mask in zip(lm.texts.tokens_BT, lm.texts.states_BT, lm.texts.mask_BT, strict=True):
        for t in range(int(mask.sum())):
            prefix = tuple(tokens[:t].tolist())
            assert prefix_of.setdefault(int(states[t]), prefix) == prefix
    assert sorted(prefix_of) == list(range(lm.states))


def test_probability_of_a_text_worked_by_hand() -> None:
    # Two tokens, at most two: state 0 is the empty prefix, state 1 is "a". p(end) = 1/4 there, 1/3 here.
    lm = ToyLM(2, 2)
    logits_SV = torch.tensor([[3.0, 1.0], [2.0, 1.0]], dtype=torch.float64).log()
    given = lm.logprobs(logits_SV).exp()
    # Texts: "end", "a end", "a a".
    torch.testing.assert_close(given, torch.tensor([1 / 4, 3 / 4 / 3, 3 / 4 * 2 / 3], dtype=torch.float64))


def test_sampler_draws_from_the_policy() -> None:
    world = World.make(4, 4)
    count = 50_000
    generator = torch.Generator().manual_seed(1)
    texts = world.lm.sample(world.logits_SV, count, generator)
    drawn_N = torch.bincount(world.lm.numbers(texts), minlength=121)
    p_N = world.lm.logprobs(world.logits_SV).exp()
    z_N = (drawn_N - count * p_N) / (count * p_N * (1 - p_N)).sqrt()
    assert float(z_N.abs().max()) < 4.5
    assert float((z_N**2).sum()) < 121 + 5 * math.sqrt(2 * 121)
    torch.testing.assert_close(texts.states_BT, world.lm.texts.states_BT[world.lm.numbers(texts)])


def test_same_seed_same_texts() -> None:
    world = World.make(4, 4)
    one, two = (world.lm.sample(world.logits_SV, 100, torch.Generator().manual_seed(7)) for _ in range(2))
    assert torch.equal(one.tokens_BT, two.tokens_BT)


def test_optimum_cannot_be_improved() -> None:
    """J is concave in p; J* - J(p) = beta KL(p || p*) for every policy, which is 0 at p* only."""
    world = World.make(4, 3)
    lm, beta = world.lm, world.beta
    p_N, best = lm.optimum(world.ref_logits_SV, world.scores_N, beta)
    for logits_SV in (world.logits_SV, world.ref_logits_SV):
        value = float(lm.objective(logits_SV, world.ref_logits_SV, world.scores_N, beta))
        gap = beta * float(exact_kl(lm.logprobs(logits_SV), p_N.log()))
        assert gap > 0.01
        assert best - value == pytest.approx(gap, abs=1e-12)


def test_soft_values_are_expectations_over_all_continuations() -> None:
    """The recursion against V*(s) = beta log of a sum over the texts that pass through s."""
    world = World.make(4, 3)
    lm, beta = world.lm, world.beta
    values_S = lm.soft_values(world.ref_logits_SV, world.scores_N, beta)
    ref_BT = lm.token_logprobs(world.ref_logits_SV, lm.texts)
    for state in range(lm.states):
        through_BT = (lm.texts.states_BT == state) & lm.texts.mask_BT
        rows = through_BT.any(-1).nonzero()[:, 0].tolist()
        total = 0.0
        for row in rows:
            t = int(through_BT[row].nonzero()[0])
            total += math.exp(float(ref_BT[row, t:].sum()) + float(world.scores_N[row]) / beta)
        assert float(values_S[state]) == pytest.approx(beta * math.log(total), abs=1e-10)


def test_optimal_logits_are_the_optimum() -> None:
    world = World.make(4, 4)
    logits_SV = world.lm.optimal_logits(world.ref_logits_SV, world.scores_N, world.beta)
    assert world.distance(logits_SV) < 1e-12
    assert world.distance(world.ref_logits_SV) > 0.2
    gradient_SV = autograd(
        lambda logits: world.lm.objective(logits, world.ref_logits_SV, world.scores_N, world.beta), logits_SV
    )
    assert float(gradient_SV.abs().max()) < 1e-12


def test_total_variation_by_hand() -> None:
    p, q = torch.tensor([0.5, 0.5, 0.0]), torch.tensor([0.25, 0.25, 0.5])
    assert float(total_variation(p, q)) == 0.5


def test_too_small_is_refused() -> None:
    with pytest.raises(ValueError, match="vocabulary of 2"):
        ToyLM(1, 3)
