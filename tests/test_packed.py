"""Packed sequences against transformers' own forward, one sequence at a time, in every family."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
import transformers
from torch import Tensor

from rewardloop.errors import ModelError
from rewardloop.models.packed import (
    completion_rows,
    completion_targets,
    forward_completions,
    head_logprobs,
    output_head,
    pack,
    packed_hidden,
    plan_passes,
    split_rows,
)
from tiny_models import CONTEXT, FAMILIES, GROUPED, random_model

VOCABULARY = 97
OTHERS: dict[str, tuple[str, dict[str, Any]]] = {
    "mistral with a window": ("MistralConfig", GROUPED | {"sliding_window": 5}),
    "bloom, which is run padded": ("BloomConfig", {"hidden_size": 32, "n_layer": 2, "n_head": 4}),
}
ALL = FAMILIES | OTHERS
PROMPTS = [[5, 6, 7], [9], [11, 12, 13, 14, 15, 16, 17], [5, 6], [8] * 9]
COMPLETIONS = [[21, 22, 23, 24], [31, 32, 33, 34, 35, 36, 37], [41], [51, 52, 53, 54, 55], [2, 1, 2, 1, 2, 1]]
# Two prompts with two and three completions, not in order, and one that only begins like another.
SHARED_PROMPTS = [[5, 6, 7, 8], [9], [5, 6, 7, 8], [5, 6], [9], [5, 6, 7, 8]]
SHARED_COMPLETIONS = [[21, 22, 23], [31, 32, 33, 34, 35], [41], [7, 8, 9], [31, 1], [21, 22, 24, 60, 61, 62, 63, 64]]
BATCHES = {"prompts of their own": (PROMPTS, COMPLETIONS), "shared prompts": (SHARED_PROMPTS, SHARED_COMPLETIONS)}


@pytest.fixture
def family(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    for name, settings in OTHERS.items():
        monkeypatch.setitem(FAMILIES, name, settings)
    return random_model(request.param, VOCABULARY)


def each_family(test: Any) -> Any:
    return pytest.mark.parametrize("family", ALL, indirect=True)(test)


def each_batch(test: Any) -> Any:
    return pytest.mark.parametrize(("prompts", "completions"), BATCHES.values(), ids=BATCHES)(test)


def plain_forward(model: Any, prompt: list[int], completion: list[int]) -> tuple[Tensor, Tensor]:
    """Log-probs [T] and states [T + 1, D], from transformers' forward of one sequence."""
    output = model(torch.tensor([prompt + completion]), output_hidden_states=True)
    rows_TV = output.logits[0].log_softmax(-1)[len(prompt) - 1 : -1]
    logprobs_T = rows_TV.gather(1, torch.tensor(completion)[:, None])[:, 0]
    return logprobs_T, output.hidden_states[-1][0, len(prompt) - 1 :]


@each_family
@each_batch
@pytest.mark.parametrize("max_tokens", [1, 20, 1000])
def test_forward_completions_is_transformers_own(
    family: Any, max_tokens: int, prompts: list[list[int]], completions: list[list[int]]
) -> None:
    found = forward_completions(family, prompts, completions, max_tokens_per_pass=max_tokens)
    longest = max(map(len, completions))
    assert found.logprobs_BT.shape == (len(prompts), longest)
    assert found.hidden_BT1D.shape == (len(prompts), longest + 1, 32)
    with torch.no_grad():
        for row, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
            logprobs_T, hidden_TD = plain_forward(family, prompt, completion)
            length = len(completion)
            torch.testing.assert_close(found.logprobs_BT[row, :length], logprobs_T, rtol=0, atol=1e-5)
            # the head is all that stands between a state and its distribution
            rows_TV = family.get_output_embeddings()(hidden_TD[:-1])
            entropies_T = torch.distributions.Categorical(logits=rows_TV).entropy()
            torch.testing.assert_close(found.entropies_BT[row, :length], entropies_T, rtol=0, atol=1e-5)
            torch.testing.assert_close(found.hidden_BT1D[row, : length + 1], hidden_TD, rtol=0, atol=1e-5)
            assert not found.logprobs_BT[row, length:].any()
            assert not found.hidden_BT1D[row, length + 1 :].any()


@each_family
@each_batch
def test_gradients_are_those_of_the_plain_forward(
    family: Any, prompts: list[list[int]], completions: list[list[int]]
) -> None:
    coefficients_BT = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))
    total = torch.zeros(())
    for row, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
        logprobs_T, _ = plain_forward(family, prompt, completion)
        total = total + (logprobs_T.exp() * coefficients_BT[row, : len(completion)]).sum()
    names, parameters = zip(*family.named_parameters(), strict=True)
    expected = torch.autograd.grad(total, parameters)
    batch = pack(prompts, completions)
    logprobs_N = head_logprobs(family, packed_hidden(family, batch), batch)
    logprobs_BT = split_rows(logprobs_N, batch.completion_lengths)
    coefficients_BT = coefficients_BT[: len(prompts), : logprobs_BT.shape[1]] * (logprobs_BT != 0)
    given = torch.autograd.grad((logprobs_BT.exp() * coefficients_BT).sum(), parameters)
    for name, ours, theirs in zip(names, given, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}")


def test_packing_leaves_the_models_attention_as_it_was() -> None:
    model = random_model("llama", VOCABULARY)
    before = model.config._attn_implementation
    forward_completions(model, PROMPTS, COMPLETIONS)
    assert model.config._attn_implementation == before

    def fail(*_: object) -> None:
        raise RuntimeError

    handle = model.model.layers[1].register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError):
        forward_completions(model, PROMPTS, COMPLETIONS)
    handle.remove()
    assert model.config._attn_implementation == before


def test_a_sequence_does_not_see_its_neighbors() -> None:
    """Another neighbor of the same length changes not one bit; nor does the order of the rows, within rounding."""
    model = random_model("qwen2", VOCABULARY)
    first = forward_completions(model, PROMPTS, COMPLETIONS)
    changed = forward_completions(model, [[3] * len(p) for p in PROMPTS[:4]] + PROMPTS[4:], COMPLETIONS)
    assert torch.equal(first.logprobs_BT[4], changed.logprobs_BT[4])
    order = [3, 0, 4, 2, 1]
    permuted = forward_completions(model, [PROMPTS[i] for i in order], [COMPLETIONS[i] for i in order])
    torch.testing.assert_close(permuted.logprobs_BT, first.logprobs_BT[order], rtol=0, atol=1e-5)
    torch.testing.assert_close(permuted.hidden_BT1D, first.hidden_BT1D[order], rtol=0, atol=1e-5)


def test_bfloat16_is_near_float32() -> None:
    model = random_model("llama", VOCABULARY)
    exact = forward_completions(model, PROMPTS, COMPLETIONS)
    fast = forward_completions(model, PROMPTS, COMPLETIONS, precision="bfloat16")
    assert 0 < float((fast.logprobs_BT - exact.logprobs_BT).abs().max()) < 0.3
    assert fast.hidden_BT1D.dtype == fast.logprobs_BT.dtype == torch.float32


def test_temperature_divides_the_logits() -> None:
    model = random_model("gpt2", VOCABULARY)
    logprobs_BT = forward_completions(model, PROMPTS[:1], COMPLETIONS[:1], temperature=0.5).logprobs_BT
    with torch.no_grad():
        logits_SV = model(torch.tensor([PROMPTS[0] + COMPLETIONS[0]])).logits[0]
    expected_T = (2 * logits_SV).log_softmax(-1)[2:6].gather(1, torch.tensor(COMPLETIONS[0])[:, None])[:, 0]
    torch.testing.assert_close(logprobs_BT[0], expected_T, rtol=0, atol=1e-5)


def test_rows_by_hand() -> None:
    batch = pack([[5, 6, 7], [9]], [[21, 22], [31, 32, 33]])
    # place:        0  1  2  3   4   5  6   7   8
    # token:        5  6  7  21  22  9  31  32  33      a token is predicted one place before it
    assert batch.input_ids_N.tolist() == [5, 6, 7, 21, 22, 9, 31, 32, 33]
    assert batch.position_ids_N.tolist() == [0, 1, 2, 3, 4, 0, 1, 2, 3]
    assert (batch.lengths, batch.prompt_lengths, batch.completion_lengths) == ((5, 4), (3, 1), (2, 3))
    assert completion_rows(batch).tolist() == [2, 3, 5, 6, 7]
    assert completion_targets(batch).tolist() == [21, 22, 31, 32, 33]
    assert split_rows(torch.arange(5), (2, 3)).tolist() == [[0, 1, 0], [2, 3, 4]]


def test_a_shared_prompt_is_there_once() -> None:
    batch = pack([[5, 6], [9], [5, 6]], [[21, 22], [31], [41]])
    # place:        0  1  2   3   4  5   6
    # token:        5  6  21  22  9  31  41
    assert batch.input_ids_N.tolist() == [5, 6, 21, 22, 9, 31, 41]
    assert batch.position_ids_N.tolist() == [0, 1, 2, 3, 0, 1, 2]
    assert [places_S.tolist() for places_S in batch.places] == [[0, 1, 2, 3], [4, 5], [0, 1, 6]]
    assert completion_rows(batch).tolist() == [1, 2, 4, 1]
    assert completion_targets(batch).tolist() == [21, 22, 31, 41]
    # groups of 4 + 3 and of 2 tokens; the sequence of 3 is padded with its last
    assert batch.attention.groups == ((2, 4), (1, 2))
    assert batch.attention.to_padded is not None
    assert batch.attention.to_padded.tolist() == [0, 1, 2, 3, 0, 1, 6, 6, 4, 5]
    assert batch.attention.to_packed is not None
    assert batch.attention.to_packed.tolist() == [0, 1, 2, 3, 8, 9, 6]


def test_nothing_is_moved_where_lengths_are_equal() -> None:
    assert pack([[5, 6], [9]], [[21], [31, 32]]).attention.to_padded is None


def test_passes_hold_the_budget_longest_first() -> None:
    def prompts(*tokens: int) -> list[list[int]]:
        return [[token] for token in tokens]

    def completions(*lengths: int) -> list[list[int]]:
        return [[0] * (length - 1) for length in lengths]

    assert plan_passes(prompts(1, 2, 3, 4, 5), completions(3, 9, 5, 5, 2), 10) == [[1], [2, 3], [0, 4]]
    assert plan_passes(prompts(1, 2), completions(30, 40), 10) == [[1], [0]]
    # of one prompt together, the longest first, where the longest of them would be
    assert plan_passes(prompts(1, 2, 1, 2), completions(3, 5, 9, 4), 100) == [[2, 0, 1, 3]]


def test_a_shared_prompt_counts_half_in_its_pass() -> None:
    # 8 + 2, then 8 / 2 + 2 each; a new pass pays for the whole prompt again
    assert plan_passes([[1] * 8] * 4, [[0] * 2] * 4, 22) == [[0, 1, 2], [3]]
    assert plan_passes([[1] * 8] * 4, [[0] * 2] * 4, 21) == [[0, 1], [2, 3]]


@pytest.mark.parametrize(
    ("prompts", "completions", "word"), [([[], [1]], [[2], [2]], "prompt"), ([[1]], [[]], "completion")]
)
def test_empty_parts_are_refused(prompts: list[list[int]], completions: list[list[int]], word: str) -> None:
    with pytest.raises(ModelError, match=rf"sequence 0 has an empty {word}"):
        pack(prompts, completions)


def test_heads_that_cannot_be_read_are_refused() -> None:
    capped = transformers.Gemma2Config(
        **(GROUPED | {"vocab_size": VOCABULARY, "head_dim": 8, "final_logit_softcapping": 30.0})
    )
    model = transformers.AutoModelForCausalLM.from_config(capped).eval()
    with pytest.raises(ModelError, match="final_logit_softcapping"):
        output_head(model)
    with pytest.raises(ModelError, match="soft caps or sinks"):
        packed_hidden(model, pack(PROMPTS, COMPLETIONS))
    with pytest.raises(ModelError, match="no output head"):
        output_head(cast(Any, random_model("llama", VOCABULARY).model))


def test_long_sequences_fill_the_context() -> None:
    """The last position of the context is used, and one group holds sequences of different lengths."""
    model = random_model("gpt2", VOCABULARY)
    prompts, completions = [[7] * 32, [9] * 30], [[8] * (CONTEXT - 32), [6] * 30]
    found = forward_completions(model, prompts, completions)
    assert len(pack(prompts, completions).attention.groups) == 1
    with torch.no_grad():
        for row in range(2):
            logprobs_T, _ = plain_forward(model, prompts[row], completions[row])
            torch.testing.assert_close(found.logprobs_BT[row, : len(logprobs_T)], logprobs_T, rtol=0, atol=1e-5)
