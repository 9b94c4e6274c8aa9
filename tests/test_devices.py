"""Tensors meet only tensors of their own device: checked on "meta", which every machine has.

Its kernels compute shapes alone, and refuse another device beside their own as those of a GPU do.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from rewardloop.functional.losses import Clip, aggregation_weights, surrogate
from rewardloop.models.packed import forward_completions, head_logprobs, pack, packed_hidden
from rewardloop.reward.features import pool_features
from rewardloop.reward.potential import Potential, prefix_states
from rewardloop.rollout.decoder import Decoder
from rewardloop.rollout.draw import draw_tokens
from tiny_models import FAMILIES, random_model

VOCABULARY = 300
PROMPTS, COMPLETIONS = [[1, 2, 3], [4]], [[5, 6], [7, 8, 9]]


@pytest.fixture(params=FAMILIES)
def elsewhere(request: pytest.FixtureRequest) -> PreTrainedModel:
    model: Any = random_model(request.param, VOCABULARY)
    return model.to("meta")  # type: ignore[no-any-return]


@torch.no_grad()
def test_decoding(elsewhere: PreTrainedModel) -> None:
    decoder = Decoder(elsewhere, torch.float32, 64)
    cache = decoder.new_cache(4, 64)
    prompts = [torch.tensor(ids) for ids in ([1, 2, 3], [3, 2, 1], [4])]
    decoder.prefill(cache, prompts, [[0, 1], [2], [3]])
    tokens_B, positions_B = torch.tensor([1, 2, 3]).to("meta"), torch.tensor([3, 3, 1]).to("meta")
    logits_BV = decoder.decode(cache, tokens_B, positions_B, 4)
    token_B, logprob_B = draw_tokens(logits_BV, np.array([1.0, 0.0, 0.5]), np.array([0.2, 0.3, 0.4]))
    assert (logits_BV.shape, token_B.device.type, logprob_B.device.type) == ((3, VOCABULARY), "meta", "meta")


def test_rewards(elsewhere: PreTrainedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rewardloop.models.packed.computing_in", lambda *_: nullcontext())  # no autocast there
    trunk = forward_completions(elsewhere, PROMPTS, COMPLETIONS)
    states_BT1D = prefix_states(trunk)
    phi_BT1 = Potential.untrained(states_BT1D.shape[-1]).values(states_BT1D)
    features_BD = pool_features(trunk, [len(ids) for ids in COMPLETIONS])
    assert {states_BT1D.device.type, phi_BT1.device.type, features_BD.device.type} == {"meta"}


def test_gradients(elsewhere: PreTrainedModel) -> None:
    batch = pack(PROMPTS, COMPLETIONS, elsewhere.device)
    logprobs_N = head_logprobs(elsewhere, packed_hidden(elsewhere, batch), batch)
    logprobs_BT = torch.nn.utils.rnn.pad_sequence(logprobs_N.split([2, 3]), batch_first=True)
    mask_BT = (torch.arange(3) < torch.tensor([2, 3])[:, None]).to("meta")
    values_BT, _ = surrogate(
        logprobs_BT, logprobs_BT.detach(), torch.ones(2, 3).to("meta"), mask_BT, level="token", bound=Clip()
    )
    weights_B = aggregation_weights("token_mean", mask_BT, torch.ones(2).to("meta"))
    (weights_B * values_BT.sum(-1)).sum().backward()
    assert {p.grad.device.type for p in elsewhere.parameters() if p.grad is not None} == {"meta"}
