"""Shaped sampling against distributions worked out by hand, and the engine's draws against them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rewardloop.rollout.engine import Engine, Request
from rewardloop.rollout.shaping import Shaping, shape_logits, top_tokens
from tiny_models import tiny_lm

# probabilities .5 .25 .15 .1
LOGITS = torch.tensor([0.5, 0.25, 0.15, 0.1]).log()


def shaped(shaping: Shaping, said: list[int] | None = None, temperature: float = 1.0) -> list[float]:
    logits = shape_logits(LOGITS, shaping, np.array(said or [], np.int64), temperature)
    return torch.softmax(logits / (temperature or 1), -1).tolist()


def test_nothing_asked_nothing_changed() -> None:
    assert Shaping().idle
    assert not Shaping(top_logprobs=1).idle
    assert torch.equal(shape_logits(LOGITS, Shaping(), np.array([0, 0]), 1.0), LOGITS)


@pytest.mark.parametrize(
    ("top_p", "expected"),
    [
        (0.4, [1, 0, 0, 0]),
        (0.5, [1, 0, 0, 0]),
        (0.51, [2 / 3, 1 / 3, 0, 0]),
        (0.8, [5 / 9, 2.5 / 9, 1.5 / 9, 0]),
        (1.0, [0.5, 0.25, 0.15, 0.1]),
    ],
)
def test_the_nucleus_is_renormalized(top_p: float, expected: list[float]) -> None:
    assert shaped(Shaping(top_p=top_p)) == pytest.approx(expected, abs=1e-6)


def test_the_nucleus_is_that_of_the_temperature() -> None:
    # at temperature 2 the probabilities are .353 .25 .194 .158 (roots, normalized): .6 takes two tokens
    roots = np.sqrt([0.5, 0.25])
    assert shaped(Shaping(top_p=0.6), temperature=2.0) == pytest.approx([*(roots / roots.sum()), 0, 0], abs=1e-6)


def test_penalties_are_by_presence_and_by_count() -> None:
    # token 0 said twice, token 2 once: their weights are divided by e^(.5 + 2 * .1) and e^(.5 + .1)
    weights = np.array([0.5 / np.exp(0.7), 0.25, 0.15 / np.exp(0.6), 0.1])
    given = shaped(Shaping(presence_penalty=0.5, frequency_penalty=0.1), said=[0, 2, 0])
    assert given == pytest.approx((weights / weights.sum()).tolist(), abs=1e-6)


def test_bias_is_added_and_unknown_tokens_are_let_go() -> None:
    weights = np.array([0.5, 0.25 * np.e, 0.15, 0.1])
    assert shaped(Shaping(logit_bias={1: 1.0, 99: 5.0})) == pytest.approx((weights / weights.sum()).tolist(), abs=1e-6)


def test_the_likeliest_come_first() -> None:
    assert [token for token, _ in top_tokens(LOGITS, 3, 1.0)] == [0, 1, 2]
    assert top_tokens(LOGITS, 2, 1.0)[1][1] == pytest.approx(np.log(0.25))
    assert len(top_tokens(LOGITS, 20, 1.0)) == 4


def test_neighbors_that_ask_for_nothing_are_not_touched() -> None:
    lm = tiny_lm("llama")
    plain = Request(prompt="abc", max_tokens=8, seed=3)
    alone = Engine(lm, slots=2, precision="float32").generate([plain])[0]
    odd = Request(prompt="abc", max_tokens=8, seed=4, shaping=Shaping(top_p=0.3, presence_penalty=1.0, top_logprobs=2))
    beside, shaped_one = Engine(lm, slots=2, precision="float32").generate([plain, odd])
    assert beside.token_ids == alone.token_ids
    assert shaped_one.token_ids != alone.token_ids


def test_a_bias_decides_and_its_logprob_is_that_of_the_shaped_draw() -> None:
    lm = tiny_lm("llama")
    engine = Engine(lm, slots=1, precision="float32")
    engine.submit(Request(prompt="abc", max_tokens=3, seed=0, shaping=Shaping(logit_bias={7: 100.0}, top_logprobs=2)))
    events = [event for _ in range(3) for event in engine.step()]
    assert [event.token_id for event in events] == [7, 7, 7]
    assert all(event.logprob == pytest.approx(0.0, abs=1e-6) for event in events)
    assert all(event.top[0] == (7, pytest.approx(0.0, abs=1e-6)) and len(event.top) == 2 for event in events)
