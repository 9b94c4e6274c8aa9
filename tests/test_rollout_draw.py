"""Sampling by inverse CDF: the right distribution, the right log-probability, the right number of numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import numpy as np
import pytest
import torch
from scipy import stats

from rewardloop.rollout.compiled import draw_tokens_compiled
from rewardloop.rollout.draw import draw_tokens, invert_cdf, uniform_stream
from rewardloop.rollout.kernels import find_compiler

needs_compiler = pytest.mark.skipif(find_compiler() is None, reason="no C++ compiler")
Draw = Callable[[torch.Tensor, np.ndarray, np.ndarray], tuple[torch.Tensor, torch.Tensor]]


@pytest.fixture(params=[draw_tokens, pytest.param(draw_tokens_compiled, marks=needs_compiler)])
def draw(request: pytest.FixtureRequest) -> Draw:
    return cast(Draw, request.param)


def first_above(probs: list[float], uniform: float) -> int:
    """The oracle: walk along the cumulative sum."""
    total = 0.0
    for token, prob in enumerate(probs):
        total += prob
        if total > uniform:
            return token
    raise AssertionError("uniform beyond the total")


@pytest.mark.parametrize("vocabulary", [1, 5, 255, 256, 257, 512, 1000])
def test_the_token_is_where_the_cumulative_sum_passes_the_uniform_number(vocabulary: int) -> None:
    generator = np.random.default_rng(vocabulary)
    # dyadic weights: every partial sum is exact, whatever the order of adding
    weights = generator.integers(0, 3, vocabulary)
    weights[-1] += 2 ** int(np.ceil(np.log2(weights.sum() + 1))) - weights.sum()
    probs = (weights / weights.sum()).tolist()
    uniform = generator.integers(0, 2**12, 200) / 2**12
    tokens = invert_cdf(torch.tensor([probs]).repeat(200, 1).float(), torch.from_numpy(uniform))
    assert tokens.tolist() == [first_above(probs, u) for u in uniform]


@pytest.mark.parametrize("vocabulary", [7, 600])
def test_the_ends_of_the_unit_interval_never_leave_the_vocabulary_or_meet_probability_zero(vocabulary: int) -> None:
    probs = torch.rand(50, vocabulary, generator=torch.Generator().manual_seed(0))
    probs[:, : vocabulary // 3] = 0
    probs[:, -2:] = 0
    probs[:25] /= 1e20
    probs = probs / probs.sum(-1, keepdim=True)
    for uniform in (0.0, 1 - 2**-53):
        tokens = invert_cdf(probs, torch.full((50,), uniform, dtype=torch.float64))
        assert (probs.gather(1, tokens[:, None]) > 0).all()


@pytest.mark.parametrize("temperature", [1.0, 0.5, 2.0])
def test_tokens_follow_the_softmax(temperature: float, draw: Draw) -> None:
    logits = 2 * torch.randn(1, 300, generator=torch.Generator().manual_seed(1))
    draws = 20_000
    uniform = uniform_stream(7, draws)
    tokens, logprobs = draw(logits.repeat(draws, 1), np.full(draws, temperature), uniform)
    expected = torch.log_softmax(logits[0].double() / temperature, -1)
    torch.testing.assert_close(logprobs.double(), expected[tokens], atol=1e-5, rtol=0)
    counts = np.bincount(tokens.numpy(), minlength=300)
    often = (expected.exp() * draws > 5).numpy()
    observed = [*counts[often], counts[~often].sum()]
    wanted = expected.exp().numpy() * draws
    assert stats.chisquare(observed, [*wanted[often], wanted[~often].sum()]).pvalue > 1e-3


def test_rows_have_temperatures_of_their_own(draw: Draw) -> None:
    logits = torch.randn(4, 50, generator=torch.Generator().manual_seed(2))
    temperature, uniform = np.array([0.0, 1.0, 0.3, 0.0]), np.array([0.1, 0.6, 0.9, 0.99])
    tokens, logprobs = draw(logits, temperature, uniform)
    for row in range(4):
        alone = draw(logits[row : row + 1], temperature[row : row + 1], uniform[row : row + 1])
        assert (tokens[row], logprobs[row]) == (alone[0][0], alone[1][0])
    assert tokens[0] == logits[0].argmax()
    # greedy tokens keep the log-probability of temperature 1
    torch.testing.assert_close(logprobs[3], torch.log_softmax(logits[3], -1).max())


def test_a_broken_row_is_told_by_its_logprob_and_leaves_the_others_alone(draw: Draw) -> None:
    logits = torch.randn(3, 400, generator=torch.Generator().manual_seed(3))
    whole, _ = draw(logits, np.ones(3), np.full(3, 0.4))
    logits[1] = torch.nan
    tokens, logprobs = draw(logits, np.ones(3), np.full(3, 0.4))
    assert logprobs.isfinite().tolist() == [True, False, True]
    assert (tokens[0], tokens[2]) == (whole[0], whole[2])


def test_a_stream_depends_on_its_seed_and_place_alone(draw: Draw) -> None:
    assert np.array_equal(uniform_stream(5, 10), uniform_stream(5, 1000)[:10])
    assert not np.array_equal(uniform_stream(5, 10), uniform_stream(6, 10))
    many = np.stack([uniform_stream(seed, 64) for seed in range(500)])
    assert stats.kstest(many.ravel(), "uniform").pvalue > 1e-3
    # neighboring seeds are independent
    assert abs(np.corrcoef(many[:-1].ravel(), many[1:].ravel())[0, 1]) < 0.02


@needs_compiler
@pytest.mark.parametrize("vocabulary", [1, 5, 255, 256, 257, 1000, 32_000])
def test_both_draw_the_same(vocabulary: int) -> None:
    generator = torch.Generator().manual_seed(vocabulary)
    logits = 3 * torch.randn(200, vocabulary, generator=generator)
    logits[:, vocabulary // 2 + 1 :: 2] = -torch.inf
    temperature = np.random.default_rng(0).choice([0.0, 0.7, 1.0, 1.5], 200)
    uniform = np.random.default_rng(1).random(200)
    (tokens, logprobs), (ours, ours_logprobs) = (
        draw(logits, temperature, uniform) for draw in (draw_tokens, draw_tokens_compiled)
    )
    same = tokens == ours
    assert same.float().mean() >= 0.98  # where the uniform number falls on a boundary, rounding decides
    torch.testing.assert_close(ours_logprobs[same], logprobs[same], atol=2e-5, rtol=0)
    assert ours_logprobs.isfinite().all()


@needs_compiler
@pytest.mark.parametrize("uniform", [0.0, 1 - 2**-53])
def test_the_compiled_draw_never_meets_probability_zero(uniform: float) -> None:
    logits = torch.randn(50, 600, generator=torch.Generator().manual_seed(0))
    logits[:, :200] = -torch.inf
    logits[:, 300:] = -torch.inf
    tokens, logprobs = draw_tokens_compiled(logits, np.ones(50), np.full(50, uniform))
    assert logprobs.isfinite().all()
    assert ((tokens >= 200) & (tokens < 300)).all()
