"""Beside the processor everything is as on it; collected where the best device is another."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch

from rewardloop import hardware
from rewardloop.functional.losses import Clip, aggregation_weights, surrogate
from rewardloop.models.packed import forward_completions, head_logprobs, pack, packed_hidden
from rewardloop.reward.features import pool_features
from rewardloop.reward.potential import Potential, prefix_states
from rewardloop.rollout.engine import Engine, Request
from rewardloop.types import Completion
from tiny_models import FAMILIES, full_logprobs, random_model, tiny_lm

ELSEWHERE = hardware.best_device()
pytestmark = pytest.mark.skipif(ELSEWHERE == "cpu", reason="the best device here is the processor")
PROMPTS, COMPLETIONS = [[1, 2, 3], [4]], [[5, 6], [7, 8, 9]]


def test_the_device_refuses_tensors_of_another() -> None:
    weights_OI = torch.ones(3, 4, device=ELSEWHERE)
    for mixed in (lambda: weights_OI @ torch.ones(4), lambda: weights_OI + torch.ones(4), weights_OI.numpy):
        with pytest.raises((RuntimeError, TypeError), match="device"):
            mixed()
    assert float((weights_OI * torch.tensor(2.0)).sum()) == 24  # a number is nobody's


# ---------------------------------------------------------------- decoding


def requests(temperature: float) -> list[Request]:
    prompts = ["the cat", "", "where can I buy honey?", "你好，", "a"]
    return [Request(prompt=prompt, max_tokens=12, temperature=temperature, seed=3) for prompt in prompts]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_same_words_are_said_also_after_new_weights(family: str) -> None:
    lm = tiny_lm(family)
    there = deepcopy(lm)
    there.model.to(ELSEWHERE)
    engines = [Engine(each, slots=3, precision="float32") for each in (lm, there)]
    assert_same(*(engine.generate(requests(0.0)) for engine in engines))
    other = random_model(family, lm.model.config.vocab_size, seed=1).state_dict()  # as they come from a file
    for engine in engines:
        engine.load_weights(other, 1)
    lm.model.load_state_dict(other)
    found = engines[1].generate(requests(1.0))
    for completion in found:
        expected_T = full_logprobs(lm, completion.prompt_ids, completion.token_ids)
        np.testing.assert_allclose(completion.logprobs_T, expected_T, atol=1e-4)
    assert_same(found, engines[0].generate(requests(1.0)))


def assert_same(one: list[Completion], other: list[Completion]) -> None:
    for first, second in zip(one, other, strict=True):
        assert first.token_ids == second.token_ids
        np.testing.assert_allclose(first.logprobs_T, second.logprobs_T, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_bfloat16_stays_close(family: str) -> None:
    """Where keys and values are bfloat16, too."""
    lm = tiny_lm(family)
    there = deepcopy(lm)
    there.model.to(ELSEWHERE)
    for completion in Engine(there, slots=3, precision="bfloat16").generate(requests(1.0)):
        expected_T = full_logprobs(lm, completion.prompt_ids, completion.token_ids)
        assert np.abs(completion.logprobs_T - expected_T.numpy()).mean() < 0.1


# ---------------------------------------------------------------- rewards and gradients


@pytest.mark.parametrize("family", FAMILIES)
def test_rewards_and_features_are_the_same(family: str) -> None:
    model = random_model(family, 300)
    found = []
    for each in (model, deepcopy(model).to(ELSEWHERE)):
        trunk = forward_completions(each, PROMPTS, COMPLETIONS)
        states_BT1D = prefix_states(trunk)
        untrained = Potential.untrained(states_BT1D.shape[-1])
        weights_E = torch.linspace(-1, 1, len(untrained.weights_E), dtype=torch.float64)
        phi_BT1 = replace(untrained, weights_E=weights_E).values(states_BT1D)
        found.append([phi_BT1, pool_features(trunk, [len(ids) for ids in COMPLETIONS]), trunk.logprobs_BT])
    for here, there in zip(*found, strict=True):
        torch.testing.assert_close(there.cpu(), here, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_are_the_same(family: str) -> None:
    model = random_model(family, 300)
    there = deepcopy(model).to(ELSEWHERE)
    for each in (model, there):
        batch = pack(PROMPTS, COMPLETIONS, each.device)
        logprobs_N = head_logprobs(each, packed_hidden(each, batch), batch)
        logprobs_BT = torch.nn.utils.rnn.pad_sequence(logprobs_N.split([2, 3]), batch_first=True)
        mask_BT = (torch.arange(3) < torch.tensor([2, 3])[:, None]).to(each.device)
        advantages_BT = torch.tensor([[1.0, -1.0, 0.0], [0.5, 2.0, -0.3]]).to(each.device)
        values_BT, _ = surrogate(logprobs_BT, logprobs_BT.detach(), advantages_BT, mask_BT, level="token", bound=Clip())
        weights_B = aggregation_weights("token_mean", mask_BT, torch.ones(2).to(each.device))
        (weights_B * values_BT.sum(-1)).sum().backward()
    for one, other in zip(model.parameters(), there.parameters(), strict=True):
        if one.grad is not None:
            assert other.grad is not None
            torch.testing.assert_close(other.grad.cpu(), one.grad, atol=1e-4, rtol=1e-3)
