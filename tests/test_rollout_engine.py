"""The decode engine against transformers: the same tokens, the same log-probabilities, whatever runs beside."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers.activations import ACT2FN

from rewardloop.errors import ConfigError, ModelError
from rewardloop.models.language_model import LanguageModel, load_language_model
from rewardloop.rollout.compiled import CompiledDecoder
from rewardloop.rollout.engine import Engine, Request
from rewardloop.rollout.families import Norm
from rewardloop.rollout.kernels import find_compiler, load_kernels
from rewardloop.rollout.sampling import sample_rollout
from rewardloop.types import Completion, Message
from tiny_models import CONTEXT, FAMILIES, byte_level_tokenizer, full_logprobs, random_model, tiny_lm

PROMPTS = ["the cat", "", "where can I buy honey?", "the cat", "你好，", "a", "naïve café", "m"]


# the byte 0xFF, which no text holds: an end token that no prompt can end with
NEEDS_COMPILER = pytest.mark.skipif(find_compiler() is None, reason="no C++ compiler")
NEVER_WRITTEN = (byte_level_tokenizer().convert_tokens_to_ids("ÿ"),)
MANY_ENDS = tuple(range(200, 260))  # so that completions end at different times


@pytest.fixture(params=[False, pytest.param(True, marks=NEEDS_COMPILER)], ids=["plain", "compiled"])
def compiled(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def requests(prompts: list[str] = PROMPTS, **settings: float) -> list[Request]:
    options = {"max_tokens": 20, "temperature": 1.0} | settings
    return [Request(prompt=prompt, seed=seed, **options) for seed, prompt in enumerate(prompts)]


def run_through(engine: Engine) -> dict[int, Completion]:
    done = {}
    while engine.busy:
        done.update({event.handle: event.completion for event in engine.step() if event.completion})
    return done


def assert_same_words(ours: list[Completion], theirs: list[Completion]) -> None:
    for one, other in zip(ours, theirs, strict=True):
        assert (one.token_ids, one.finish_reason, one.text) == (other.token_ids, other.finish_reason, other.text)
        np.testing.assert_allclose(one.logprobs_T, other.logprobs_T, atol=2e-5)


def assert_logprobs_are_those_of_a_full_forward(lm: LanguageModel, completions: list[Completion]) -> None:
    for completion in completions:
        expected = full_logprobs(lm, completion.prompt_ids, completion.token_ids, completion.temperature or 1.0)
        np.testing.assert_allclose(completion.logprobs_T, expected, atol=1e-4)


# ---------------------------------------------------------------- against transformers


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_is_generate_and_logprobs_are_those_of_a_full_forward(family: str, compiled: bool) -> None:
    lm = tiny_lm(family)
    completions = Engine(lm, slots=3, precision="float32", compiled=compiled).generate(requests(temperature=0.0))
    assert_logprobs_are_those_of_a_full_forward(lm, completions)
    for completion in completions:
        ids = torch.tensor([completion.prompt_ids])
        generated = lm.model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=20, eos_token_id=1
        )
        assert generated[0, ids.shape[1] :].tolist() == list(completion.token_ids)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_sampled_logprobs_are_those_of_a_full_forward(family: str, temperature: float, compiled: bool) -> None:
    lm = tiny_lm(family)
    completions = Engine(lm, slots=3, precision="float32", compiled=compiled).generate(
        requests(temperature=temperature)
    )
    assert_logprobs_are_those_of_a_full_forward(lm, completions)


@pytest.mark.parametrize("family", FAMILIES)
def test_bfloat16_stays_close(family: str, compiled: bool) -> None:
    lm = tiny_lm(family)
    for completion in Engine(lm, slots=3, precision="bfloat16", compiled=compiled).generate(requests()):
        expected = full_logprobs(lm, completion.prompt_ids, completion.token_ids)
        # these models have weights twenty times as large as trained ones
        assert np.abs(completion.logprobs_T - expected.numpy()).mean() < 0.1


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "prompt", "spare"),
    [
        ("stories260K", "Once upon a time", 80),
        ("tinystories-656K", "Lily saw a cat", 80),
        ("zh-poem-750K", "主题：明月 体裁：五绝\n", 40),
    ],
)
def test_real_models_say_what_generate_says(shared: Path, name: str, prompt: str, spare: int, compiled: bool) -> None:
    lm = load_language_model(shared / "models" / name, device="cpu")
    engine = Engine(lm, slots=4, precision="float32", compiled=compiled)
    greedy, sampled = engine.generate(
        [
            Request(prompt=prompt, max_tokens=spare, temperature=0.0, seed=0),
            Request(prompt=prompt, max_tokens=spare, seed=3),
        ]
    )
    ids = torch.tensor([greedy.prompt_ids])
    generated = lm.model.generate(ids, do_sample=False, max_new_tokens=spare, eos_token_id=list(lm.end_ids))
    assert generated[0, ids.shape[1] :].tolist() == list(greedy.token_ids)
    assert_logprobs_are_those_of_a_full_forward(lm, [greedy, sampled])


# ---------------------------------------------------------------- independence


def test_slots_neighbors_and_order_of_arrival_do_not_change_what_is_said(compiled: bool) -> None:
    lm = tiny_lm(end_ids=MANY_ENDS)
    wanted = [
        Request(prompt=prompt, max_tokens=max_tokens, temperature=temperature, seed=seed)
        for seed, (prompt, max_tokens, temperature) in enumerate(
            zip(PROMPTS * 3, (30, 6, 17) * 8, (1.0, 0.0, 0.5, 2.0, 1.0, 0.7) * 4, strict=True)
        )
    ]
    alone = [Engine(lm, slots=1, precision="float32").generate([request])[0] for request in wanted]
    assert len({len(completion.token_ids) for completion in alone}) > 3
    for slots, order in ((3, 1), (64, -1)):
        engine = Engine(lm, slots=slots, precision="float32", compiled=compiled)
        assert_same_words(engine.generate(wanted[::order])[::order], alone)


def test_requests_that_arrive_in_mid_run_find_a_slot_and_change_nothing() -> None:
    lm = tiny_lm(end_ids=MANY_ENDS)
    wanted = requests(max_tokens=30)
    alone = [Engine(lm, slots=1, precision="float32").generate([request])[0] for request in wanted]
    engine = Engine(lm, slots=2, precision="float32")
    handles, done = [], {}
    for request in wanted:
        handles.append(engine.submit(request))
        for _ in range(3):
            done.update({event.handle: event.completion for event in engine.step() if event.completion})
    done |= run_through(engine)
    assert_same_words([done[handle] for handle in handles], alone)


def test_a_longer_request_in_mid_run_enlarges_the_cache_and_changes_nothing() -> None:
    lm = tiny_lm_with_context(256)
    short = Request(prompt="the cat", max_tokens=40, seed=1)
    long = Request(prompt="a", max_tokens=200, seed=2)
    alone = [Engine(lm, slots=1, precision="float32").generate([request])[0] for request in (short, long)]
    engine = Engine(lm, slots=2, precision="float32")
    first = engine.submit(short)
    for _ in range(5):
        engine.step()
    second = engine.submit(long)
    done = run_through(engine)
    assert_same_words([done[first], done[second]], alone)
    assert len(done[second].token_ids) > 64


def tiny_lm_with_context(context: int) -> LanguageModel:
    lm = tiny_lm(end_ids=NEVER_WRITTEN)
    model = random_model("llama", len(lm.tokenizer), max_position_embeddings=context)
    return LanguageModel(model, lm.tokenizer, lm.end_ids, context, "longer")


def test_the_same_seed_gives_the_same_bits_and_another_seed_other_words(compiled: bool) -> None:
    lm = tiny_lm()
    first, again = (Engine(lm, slots=3, compiled=compiled).generate(requests()) for _ in range(2))
    for one, other in zip(first, again, strict=True):
        assert one.token_ids == other.token_ids
        assert one.logprobs_T.tobytes() == other.logprobs_T.tobytes()
    twins = Engine(lm, slots=3).generate([Request(prompt="a", max_tokens=20, seed=seed) for seed in range(4)])
    assert len({completion.token_ids for completion in twins}) == 4


def test_first_tokens_follow_the_model() -> None:
    lm = tiny_lm()
    draws = 3000
    rollout = sample_rollout(
        Engine(lm, slots=500, precision="float32"), ["the"], group_size=draws, max_tokens=1, seed=4
    )
    counts = np.bincount([c.token_ids[0] for c in rollout.completions], minlength=300)
    ids = torch.tensor([rollout.completions[0].prompt_ids])
    expected = torch.softmax(lm.model(ids).logits[0, -1].double(), -1).detach().numpy() * draws
    z = (counts - expected) / np.sqrt(expected * (1 - expected / draws))
    assert np.abs(z[expected > 5]).max() < 4.5
    assert (expected > 5).sum() > 10


# ---------------------------------------------------------------- ends


def test_every_end_token_ends_and_is_kept_and_not_shown() -> None:
    free = Engine(tiny_lm(end_ids=NEVER_WRITTEN), slots=4).generate(requests(max_tokens=40))
    said_by_us = {token for completion in free for token in completion.prompt_ids}
    chosen = set(free[0].token_ids[3:5] + free[1].token_ids[6:8]) - said_by_us
    assert len(chosen) > 1
    lm = tiny_lm(end_ids=tuple(chosen))
    for before, after in zip(free, Engine(lm, slots=4).generate(requests(max_tokens=40)), strict=True):
        hits = [at for at, token in enumerate(before.token_ids) if token in chosen]
        assert after.token_ids == before.token_ids[: hits[0] + 1 if hits else None]
        assert after.finish_reason == ("stop" if hits else before.finish_reason)
        assert after.text == lm.decode([token for token in after.token_ids if token not in chosen])


def test_max_tokens_counts_the_end_token_and_the_context_is_never_left() -> None:
    lm = tiny_lm(end_ids=NEVER_WRITTEN)
    short, long = Engine(lm, slots=2).generate(
        [Request(prompt="a", max_tokens=1, seed=0), Request(prompt="the cat", max_tokens=10_000, seed=1)]
    )
    assert (len(short.token_ids), short.finish_reason) == (1, "length")
    assert len(long.prompt_ids) + len(long.token_ids) == CONTEXT
    assert long.finish_reason == "length"
    narrow = Engine(lm, slots=2, max_length=20).generate([Request(prompt="the cat", max_tokens=99, seed=1)])[0]
    assert narrow.token_ids == long.token_ids[: 20 - len(long.prompt_ids)]


def test_a_cancelled_request_gives_what_it_said_and_frees_its_slot() -> None:
    lm = tiny_lm(end_ids=NEVER_WRITTEN)
    wanted = requests(max_tokens=30)[:4]
    alone = [Engine(lm, slots=1, precision="float32").generate([request])[0] for request in wanted]
    engine = Engine(lm, slots=2, precision="float32")
    handles = [engine.submit(request) for request in wanted]
    for _ in range(5):
        engine.step()
    running, waiting = engine.cancel(handles[0]), engine.cancel(handles[3])
    assert running is not None
    assert running.token_ids == alone[0].token_ids[:5]
    assert running.finish_reason == "cancelled"
    assert waiting is not None
    assert waiting.token_ids == ()
    assert {event.handle for event in engine.step()} == {handles[1], handles[2]}
    done = run_through(engine)
    assert_same_words([done[handles[1]], done[handles[2]]], alone[1:3])
    assert engine.cancel(handles[0]) is None


def test_events_tell_every_token_as_it_comes() -> None:
    engine = Engine(tiny_lm(), slots=2)
    handles = [engine.submit(request) for request in requests()]
    events = []
    while engine.busy:
        events += engine.step()
    for handle in handles:
        mine = [event for event in events if event.handle == handle]
        assert [event.completion is not None for event in mine] == [False] * (len(mine) - 1) + [True]
        completion = mine[-1].completion
        assert completion is not None
        assert tuple(event.token_id for event in mine) == completion.token_ids
        assert [event.logprob for event in mine] == completion.logprobs_T.tolist()


# ---------------------------------------------------------------- weights


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt-neox"])
def test_weights_change_between_two_steps_and_every_token_knows_its_version(family: str, compiled: bool) -> None:
    first, second = tiny_lm(family, seed=0, end_ids=NEVER_WRITTEN), tiny_lm(family, seed=1, end_ids=NEVER_WRITTEN)
    engine = Engine(first, slots=3, precision="float32", compiled=compiled)
    handles = [engine.submit(request) for request in requests(max_tokens=12)]
    done = {}
    for step in range(100):
        if step == 7:
            engine.load_weights(second.model.state_dict(), version=5)
        done.update({event.handle: event.completion for event in engine.step() if event.completion})
    assert len(done) == len(handles)
    mixed = 0
    for completion in done.values():
        versions = completion.weight_versions_T
        assert versions.dtype == np.int32
        assert versions.tolist() == sorted(versions.tolist())
        for lm, version in ((first, 0), (second, 5)):
            expected = full_logprobs(lm, completion.prompt_ids, completion.token_ids).numpy()
            np.testing.assert_allclose(
                completion.logprobs_T[versions == version], expected[versions == version], atol=1e-4
            )
        mixed += len(set(versions.tolist())) == 2
    assert mixed == 3


def test_the_engine_keeps_its_weights_while_the_model_learns() -> None:
    lm = tiny_lm()
    engine = Engine(lm, slots=3, precision="float32")
    before = engine.generate(requests())
    with torch.no_grad():
        for parameter in lm.model.parameters():
            parameter.mul_(1.5)
    assert_same_words(engine.generate(requests()), before)
    engine.load_weights(lm.model.state_dict(), version=1)
    assert_logprobs_are_those_of_a_full_forward(lm, engine.generate(requests()))


def test_weights_that_do_not_fit_change_nothing() -> None:
    lm = tiny_lm()
    engine = Engine(lm, slots=3, precision="float32")
    before = engine.generate(requests())
    tensors = dict(lm.model.state_dict())
    with pytest.raises(ModelError, match=r"the tensor model\.norm\.weight is \(16,\), and the model's is \(32,\)"):
        engine.load_weights(tensors | {"model.norm.weight": torch.ones(16)}, version=1)
    del tensors["model.norm.weight"]
    with pytest.raises(ModelError, match=r"lack the tensor 'model\.norm\.weight'"):
        engine.load_weights(tensors, version=1)
    assert engine.weight_version == 0
    assert_same_words(engine.generate(requests()), before)


def test_tied_weights_need_no_head() -> None:
    lm, other = tiny_lm(), tiny_lm(seed=1)
    tensors = {name: tensor for name, tensor in other.model.state_dict().items() if name != "lm_head.weight"}
    engine = Engine(lm, slots=3, precision="float32")
    engine.load_weights(tensors, version=1)
    assert_logprobs_are_those_of_a_full_forward(other, engine.generate(requests()))


def test_weights_that_are_not_finite_are_told_by_version(compiled: bool) -> None:
    lm = tiny_lm()
    engine = Engine(lm, slots=3, compiled=compiled)
    tensors = {name: tensor * torch.nan for name, tensor in lm.model.state_dict().items()}
    engine.load_weights(tensors, version=8)
    with pytest.raises(ModelError, match="weights version 8 gives log-probabilities that are not finite"):
        engine.generate(requests())
    # a loop that rolls back can go on with the same engine
    engine.load_weights(lm.model.state_dict(), version=7)
    assert_logprobs_are_those_of_a_full_forward(lm, engine.generate(requests()))


# ---------------------------------------------------------------- rollouts and bad input


def test_a_rollout_holds_groups_of_different_completions() -> None:
    lm = tiny_lm()
    prompts = ["the cat", (Message("user", "honey"),)]
    rollout = sample_rollout(Engine(lm, slots=4), prompts, group_size=3, max_tokens=8, seed=11)
    assert rollout.groups == (0, 0, 0, 1, 1, 1)
    assert [completion.prompt for completion in rollout.completions] == [prompts[group] for group in rollout.groups]
    assert len({completion.token_ids for completion in rollout.completions}) == 6
    again = sample_rollout(Engine(lm, slots=2), prompts, group_size=3, max_tokens=8, seed=11)
    assert [c.token_ids for c in again.completions] == [c.token_ids for c in rollout.completions]
    other = sample_rollout(Engine(lm, slots=2), prompts, group_size=3, max_tokens=8, seed=12)
    assert [c.token_ids for c in other.completions] != [c.token_ids for c in rollout.completions]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_tokens": 0}, "max_tokens is 0"),
        ({"temperature": -1.0}, "temperature is -1.0"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"temperature": float("inf")}, "temperature is inf"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_numbers_out_of_range_are_refused(change: dict[str, float], message: str) -> None:
    engine = Engine(tiny_lm())
    with pytest.raises(ConfigError, match=message):
        engine.submit(Request(**({"prompt": "a", "max_tokens": 3, "seed": 0} | change)))
    assert not engine.busy


def test_prompts_and_settings_that_do_not_fit_are_refused() -> None:
    lm = tiny_lm()
    with pytest.raises(ModelError, match="has room for 64"):
        Engine(lm).submit(Request(prompt="你" * 99, max_tokens=3, seed=0))
    with pytest.raises(ModelError, match="the engine's sequences at most 5"):
        Engine(lm, max_length=5).submit(Request(prompt="where can I buy honey?", max_tokens=3, seed=0))
    with pytest.raises(ConfigError, match="max_length is 65"):
        Engine(lm, max_length=65)
    with pytest.raises(ConfigError, match="slots is 0"):
        Engine(lm, slots=0)
    with pytest.raises(ConfigError, match="precision"):
        Engine(lm, precision="float16")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="group_size is 0"):
        sample_rollout(Engine(lm), ["a"], group_size=0, max_tokens=3, seed=0)


def test_generate_refuses_to_swallow_the_tokens_of_others() -> None:
    engine = Engine(tiny_lm())
    engine.submit(Request(prompt="a", max_tokens=3, seed=0))
    with pytest.raises(ConfigError, match="running submitted requests"):
        engine.generate(requests())


def test_a_bad_request_among_good_ones_runs_none_of_them() -> None:
    engine = Engine(tiny_lm())
    with pytest.raises(ConfigError):
        engine.generate([*requests(), Request(prompt="a", max_tokens=0, seed=0)])
    assert not engine.busy


def test_a_sliding_window_bounds_the_length() -> None:
    lm = tiny_lm("mistral")
    lm.model.config.sliding_window = 16
    assert len(Engine(lm).generate([Request(prompt="", max_tokens=60, seed=0)])[0].token_ids) <= 15
    with pytest.raises(ConfigError, match="sees only 16 positions back"):
        Engine(lm, max_length=32)


def test_an_unknown_family_is_refused_by_name() -> None:
    lm = tiny_lm()
    lm.model.config.model_type = "mamba"
    with pytest.raises(ModelError, match="this model is 'mamba'"):
        Engine(lm)


# ---------------------------------------------------------------- the compiled step


@NEEDS_COMPILER
def test_threads_change_no_bit_of_the_compiled_kernels() -> None:
    lm, said = tiny_lm("qwen3"), []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            decoder = CompiledDecoder(lm.model, torch.float32, CONTEXT)
            decoder._layers = []  # the matrix products are not ours
            cache: list[torch.Tensor] = []
            said.append(decoder.states(cache, torch.arange(5), torch.zeros(5, dtype=torch.long), 1))
            qkv = torch.randn(5, 8 * 16, generator=torch.Generator().manual_seed(0))
            kv = torch.zeros(2, 6, 2, CONTEXT, 16)
            said.append(decoder._mixed(qkv, kv, torch.zeros(5, dtype=torch.long), None, None))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(said[0], said[2])
    assert torch.equal(said[0], said[4])
    assert torch.equal(said[1], said[3])
    assert torch.equal(said[1], said[5])


@NEEDS_COMPILER
@pytest.mark.parametrize("kind", ["silu", "gelu", "gelu_new", "relu"])
@pytest.mark.parametrize("gated", [True, False])
def test_activations_are_those_of_transformers(kind: str, gated: bool) -> None:
    lm = tiny_lm()
    decoder = CompiledDecoder(lm.model, torch.float32, CONTEXT)
    decoder.shape = replace(decoder.shape, activation=kind, gated=gated)
    up = torch.cat([torch.linspace(-120, 120, 4001), torch.tensor([torch.nan])]).repeat(2)[None]
    gate, rest = up.chunk(2, dim=-1)
    expected = ACT2FN[kind](gate) * rest if gated else ACT2FN[kind](up)
    torch.testing.assert_close(decoder._activated(up), expected, atol=1e-5, rtol=1e-5, equal_nan=True)


@NEEDS_COMPILER
def test_scores_of_any_size_and_what_is_not_a_number_come_through() -> None:
    decoder = CompiledDecoder(tiny_lm("gpt2").model, torch.bfloat16, CONTEXT)
    heads, width, rows, seen = decoder.shape.heads, decoder.shape.head_dim, 3, 7
    generator = torch.Generator().manual_seed(0)
    kv = torch.randn(2, rows, heads, CONTEXT, width, generator=generator)
    qkv = (torch.randn(rows, 3 * heads, width, generator=generator) * 60).bfloat16()
    mixed = decoder._mixed(qkv.flatten(1), kv, torch.full((rows,), seen - 1), None, None)
    query, key, value = qkv.float().split(heads, 1)
    assert torch.equal(kv[0, :, :, seen - 1], key)
    assert torch.equal(kv[1, :, :, seen - 1], value)
    expected = torch.nn.functional.scaled_dot_product_attention(
        query[:, :, None], kv[0, :, :, :seen], kv[1, :, :, :seen], scale=1.0
    )
    torch.testing.assert_close(mixed.float(), expected.flatten(1), rtol=1e-2, atol=1e-2)
    payload = torch.tensor([0x7FFFFFFF], dtype=torch.int32).view(torch.float32)  # rounding up would carry into the sign
    norm = Norm(payload.expand(32).contiguous())
    assert decoder._normalized(torch.ones(1, 32), None, norm).isnan().all()


@NEEDS_COMPILER
def test_what_cannot_be_compiled_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    lm = tiny_lm()
    broken = tiny_lm()
    broken.model.config.hidden_act = "mish"
    with pytest.raises(ConfigError, match="compiled decoding knows the activations silu"):
        Engine(broken, compiled=True)
    load_kernels.cache_clear()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CXX", "false")
    with pytest.raises(ConfigError, match="false could not compile the decoding kernels"):
        Engine(lm, compiled=True)
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ConfigError, match=r"needs a C\+\+ compiler, and none of no-such-compiler was found"):
        Engine(lm, compiled=True)
    assert not list(tmp_path.rglob("*.so"))
    monkeypatch.delenv("CXX")
    Engine(lm, compiled=True)
    made = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    load_kernels.cache_clear()
    Engine(lm, compiled=True)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == made
