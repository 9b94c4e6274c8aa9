"""The engine behind HTTP: the same words as the engine itself, whatever runs beside them; nothing is left running."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
import torch

from rewardloop.errors import StoreError
from rewardloop.evaluate.foresight import potential_version
from rewardloop.loop.manifests import read_manifest, set_active
from rewardloop.loop.processes.engine_server import EngineServer, load_server, make_app
from rewardloop.loop.processes.token_rewards import Foresight, Reference
from rewardloop.loop.weights import publish_version
from rewardloop.models.language_model import LanguageModel
from rewardloop.models.packed import forward_completions
from rewardloop.reward.potential import Potential, prefix_states, state_width
from rewardloop.rollout.engine import Engine, Request, TokenEvent
from rewardloop.rollout.kernels import find_compiler
from serving import served
from tiny_models import CONTEXT, save_tiny


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> EngineServer:
    folder = tmp_path_factory.mktemp("model")
    save_tiny(folder / "tiny", "llama")
    return load_server(str(folder / "tiny"), "tiny", slots=4)


@pytest.fixture(scope="module")
def client(server: EngineServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx2.Client]:
    path = tmp_path_factory.mktemp("s") / "engine.sock"
    with served(make_app(server), uds=str(path)):
        transport = httpx2.HTTPTransport(uds=str(path))
        with httpx2.Client(transport=transport, base_url="http://engine", timeout=30) as made:
            yield made


def say(client: httpx2.Client, **asked: Any) -> list[dict[str, Any]]:
    """All chunks of an answer."""
    path = "/v1/chat/completions" if "messages" in asked else "/v1/completions"
    reply = client.post(path, json={"stream": True, **asked})
    assert reply.status_code == 200, reply.text
    events = [line.removeprefix("data: ") for line in reply.text.splitlines() if line]
    assert events[-1] == "[DONE]"
    return [json.loads(event) for event in events[:-1]]


def choices(chunks: list[dict[str, Any]], index: int = 0) -> list[dict[str, Any]]:
    return [choice for chunk in chunks for choice in chunk["choices"] if choice["index"] == index]


def ids_of(chunks: list[dict[str, Any]], index: int = 0) -> list[int]:
    return [token for choice in choices(chunks, index) for token in choice["token_ids"]]


def test_it_says_what_the_engine_says(server: EngineServer, client: httpx2.Client) -> None:
    chunks = say(client, prompt="abc", max_tokens=12, seed=5)
    alone = Engine(server.lm, slots=1).generate([Request(prompt="abc", max_tokens=12, seed=5)])[0]
    assert ids_of(chunks) == list(alone.token_ids)
    assert "".join(choice["text"] for choice in choices(chunks)) == alone.text
    logprobs = [entry["logprob"] for choice in choices(chunks) for entry in choice["logprobs"]["content"]]
    np.testing.assert_allclose(logprobs, alone.logprobs_T, atol=1e-4)
    assert chunks[0]["prompt_token_ids"] == list(alone.prompt_ids)
    assert chunks[-1]["usage"]["completion_tokens"] == len(alone.token_ids)
    assert choices(chunks)[-1]["finish_reason"] == alone.finish_reason


@pytest.mark.skipif(find_compiler() is None, reason="no C++ compiler")
def test_a_compiled_engine_says_the_same(server: EngineServer, client: httpx2.Client, tmp_path: Path) -> None:
    save_tiny(tmp_path / "tiny", "llama")
    if server.lm.device.type != "cpu":
        pytest.skip("compiled decoding is for the CPU")
    compiled = load_server(str(tmp_path / "tiny"), "tiny", slots=4, compiled=True)
    path = tmp_path / "c.sock"
    with served(make_app(compiled), uds=str(path)):
        transport = httpx2.HTTPTransport(uds=str(path))
        with httpx2.Client(transport=transport, base_url="http://engine", timeout=30) as other:
            for asked in ({"seed": 5}, {"temperature": 0}):
                given = {"prompt": "abc", "max_tokens": 12, **asked}
                assert ids_of(say(other, **given)) == ids_of(say(client, **given))


def test_choices_have_seeds_of_their_own(client: httpx2.Client) -> None:
    both = say(client, prompt="abc", max_tokens=10, seed=5, n=2)
    second = say(client, prompt="abc", max_tokens=10, seed=6)
    assert ids_of(both, 1) == ids_of(second)
    assert ids_of(both, 0) != ids_of(both, 1)


def test_token_ids_are_a_prompt_too(client: httpx2.Client) -> None:
    prompt_ids = say(client, prompt="abc", max_tokens=1, seed=1)[0]["prompt_token_ids"]
    assert ids_of(say(client, prompt=prompt_ids, max_tokens=6, seed=1)) == ids_of(
        say(client, prompt="abc", max_tokens=6, seed=1)
    )


def test_a_stop_sequence_ends_it_and_frees_its_slot(server: EngineServer, client: httpx2.Client) -> None:
    whole = "".join(choice["text"] for choice in choices(say(client, prompt="abc", max_tokens=40, seed=2)))
    stop = whole[3:5]
    chunks = say(client, prompt="abc", max_tokens=40, seed=2, stop=[stop])
    assert "".join(choice["text"] for choice in choices(chunks)) == whole.partition(stop)[0]
    assert choices(chunks)[-1]["finish_reason"] == "stop"
    assert_idle(server)


@torch.no_grad()
def typical(lm: LanguageModel, prompt_ids: list[int], ids: list[int]) -> torch.Tensor:
    """Log-prob plus entropy of each token, by the model's own full distributions."""
    logits_SV = lm.model(torch.tensor([[*prompt_ids, *ids]], device=lm.device)).logits[0, len(prompt_ids) - 1 : -1]
    logprobs_TV = torch.log_softmax(logits_SV.cpu(), -1)
    return logprobs_TV[range(len(ids)), ids] - (logprobs_TV.exp() * logprobs_TV).sum(-1)


def test_rewards_come_for_every_token(server: EngineServer, client: httpx2.Client) -> None:
    chunks = say(client, prompt="abc", max_tokens=11, seed=5, rewards=True)
    rewards = [reward for choice in choices(chunks) for reward in choice["token_rewards"]]
    ids = ids_of(chunks)
    assert len(rewards) == len(ids)
    assert chunks[0]["reward_version"] == "typicality"
    expected_T = typical(server.lm, chunks[0]["prompt_token_ids"], ids)
    np.testing.assert_allclose(rewards, expected_T.numpy(), atol=1e-4)


@pytest.mark.parametrize(
    ("asked", "word"),
    [
        ({"prompt": "abc", "max_tokens": 0}, "max_tokens"),
        ({"prompt": []}, "token"),
        ({"prompt": [10**6]}, "token"),
        ({"prompt": "a" * 5000}, "prompt"),
        ({"prompt": "abc", "tools": []}, "tools"),
        ({"messages": []}, "messages"),
        ({"prompt": "abc", "stream": False}, "stream"),
    ],
)
def test_what_it_refuses_it_names(client: httpx2.Client, asked: dict[str, Any], word: str) -> None:
    path = "/v1/chat/completions" if "messages" in asked else "/v1/completions"
    reply = client.post(path, json={"stream": True, **asked})
    assert reply.status_code == 400
    assert word in reply.json()["error"]["message"]


def test_whoever_leaves_frees_the_slot(
    server: EngineServer, client: httpx2.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = server.engine.step

    def slowly() -> list[TokenEvent]:
        time.sleep(0.05)
        return step()

    monkeypatch.setattr(server.engine, "step", slowly)
    begun = server.thread.steps
    asked = {"prompt": "abc", "max_tokens": 1000, "seed": 1, "stream": True, "logit_bias": {"1": -100}}
    with client.stream("POST", "/v1/completions", json=asked) as reply:
        next(reply.iter_lines())
    assert_idle(server)
    assert server.thread.steps - begun < CONTEXT // 2  # to its end it would have gone on to the whole context


def test_many_at_once_say_what_each_says_alone(client: httpx2.Client) -> None:
    alone = {seed: ids_of(say(client, prompt="abc", max_tokens=20, seed=seed)) for seed in range(12)}
    together: dict[int, list[int]] = {}

    def run(seed: int) -> None:
        together[seed] = ids_of(say(client, prompt="abc", max_tokens=20, seed=seed))

    threads = [threading.Thread(target=run, args=(seed,)) for seed in alone]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == alone


def test_new_weights_are_verified_and_counted(server: EngineServer, client: httpx2.Client, tmp_path: Path) -> None:
    before = {name: value.clone() for name, value in server.lm.model.state_dict().items()}
    changed = {name: value + 0.01 for name, value in before.items()}
    manifest = publish_version(tmp_path, 1, {"policy": changed}, model="tiny")
    assert read_manifest(manifest.path) == manifest
    reply = client.post("/weights", json={"manifest": str(manifest.path)})
    assert reply.json() == {"version": 1, "digest": manifest.digest}
    chunks = say(client, prompt="abc", max_tokens=6, seed=3)
    assert {version for choice in choices(chunks) for version in choice["weight_versions"]} == {1}
    logprobs = [entry["logprob"] for choice in choices(chunks) for entry in choice["logprobs"]["content"]]
    np.testing.assert_allclose(logprobs, offline(server.lm, changed, chunks), atol=1e-4)

    damaged = publish_version(tmp_path, 2, {"policy": before}, model="tiny")
    data = bytearray(damaged.file().read_bytes())
    data[-1] ^= 1
    damaged.file().write_bytes(data)
    refused = client.post("/weights", json={"manifest": str(damaged.path)})
    assert refused.status_code == 400
    assert "damaged" in refused.json()["error"]["message"]
    assert client.get("/v1/models").json()["data"][0]["weight_version"] == 1


def offline(lm: LanguageModel, tensors: dict[str, torch.Tensor], chunks: list[dict[str, Any]]) -> list[float]:
    """Log-probs of the same tokens by a full forward pass with other weights."""
    before = {name: value.clone() for name, value in lm.model.state_dict().items()}
    lm.model.load_state_dict(tensors)
    found = forward_completions(lm.model, [chunks[0]["prompt_token_ids"]], [ids_of(chunks)]).logprobs_BT[0].tolist()
    lm.model.load_state_dict(before)
    return found


def assert_idle(server: EngineServer) -> None:
    """Within a moment nothing runs any more."""
    deadline = time.monotonic() + 10
    while server.engine.busy or server.thread.running:
        assert time.monotonic() < deadline, "a request went on after its client had gone"
        time.sleep(0.01)


def test_what_was_learned_is_read_along(server: EngineServer) -> None:
    """phi's rewards one token at a time, against one forward pass over all of them."""
    lm = server.lm
    prompt_ids, token_ids = lm.encode_prompt("abc"), lm.encode_completion("hello")
    trunk = forward_completions(lm.model, [prompt_ids], [token_ids])
    states = prefix_states(trunk)
    generator = torch.Generator().manual_seed(0)
    untrained = Potential.untrained(states.shape[-1])
    weights = torch.randn(untrained.weights_E.shape, generator=generator, dtype=torch.float64)
    potential = replace(untrained, weights_E=weights)
    stream = Foresight(Reference(lm), potential, "phi-test").begin(prompt_ids)
    rewards = [stream.extend(token_id) for token_id in token_ids]
    np.testing.assert_allclose(rewards, potential.values(states)[0].diff().cpu().numpy(), atol=1e-3)


def learned_potential(lm: LanguageModel, seed: int) -> Potential:
    untrained = Potential.untrained(state_width(lm.model.config.hidden_size))
    generator = torch.Generator().manual_seed(seed)
    weights_E = torch.randn(untrained.weights_E.shape, generator=generator, dtype=torch.float64)
    return replace(untrained, weights_E=weights_E)


def given_again(client: httpx2.Client) -> dict[str, Any]:
    assert client.post("/weights", json={"manifest": None}).json() == {"version": 0, "digest": None}
    return dict(client.get("/v1/models").json()["data"][0])


def rewards_of(chunks: list[dict[str, Any]]) -> list[float]:
    return [reward for choice in choices(chunks) for reward in choice["token_rewards"]]


def test_a_version_brings_what_foresees_rewards(server: EngineServer, client: httpx2.Client, tmp_path: Path) -> None:
    """Read with the model as it was given, whatever is served."""
    given_again(client)
    lm, potential = server.lm, learned_potential(server.lm, 1)
    changed = {name: value + 0.01 for name, value in lm.model.state_dict().items()}
    manifest = publish_version(tmp_path, 4, {"policy": changed, "potential": potential.tensors()}, model="tiny")
    assert client.post("/weights", json={"manifest": str(manifest.path)}).status_code == 200
    shown = client.get("/v1/models").json()["data"][0]
    assert (shown["weight_version"], shown["reward_version"]) == (4, potential_version(potential))
    chunks = say(client, prompt="abc", max_tokens=9, seed=5, rewards=True)
    assert chunks[0]["reward_version"] == potential_version(potential)
    trunk = forward_completions(lm.model, [chunks[0]["prompt_token_ids"]], [ids_of(chunks)])
    np.testing.assert_allclose(
        rewards_of(chunks), potential.values(prefix_states(trunk))[0].diff().cpu().numpy(), atol=1e-3
    )

    plain = publish_version(tmp_path, 5, {"policy": changed}, model="tiny")
    client.post("/weights", json={"manifest": str(plain.path)})
    assert client.get("/v1/models").json()["data"][0]["reward_version"] == "typicality"
    shown = given_again(client)
    assert (shown["weight_version"], shown["reward_version"]) == (0, "typicality")


def test_a_running_answer_keeps_what_foresees_its_rewards(
    server: EngineServer, client: httpx2.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given_again(client)
    lm, step = server.lm, server.engine.step

    def slowly() -> list[TokenEvent]:
        time.sleep(0.02)
        return step()

    monkeypatch.setattr(server.engine, "step", slowly)
    potential = learned_potential(lm, 2)
    parts = {"policy": lm.model.state_dict(), "potential": potential.tensors()}
    manifest = publish_version(tmp_path, 6, parts, model="tiny")
    asked = {"prompt": "abc", "max_tokens": 40, "seed": 1, "stream": True, "rewards": True, "logit_bias": {"1": -100}}
    with client.stream("POST", "/v1/completions", json=asked) as reply:
        lines = (json.loads(line[6:]) for line in reply.iter_lines() if line.startswith("data: {"))
        chunks = [next(lines), next(lines)]
        assert client.post("/weights", json={"manifest": str(manifest.path)}).status_code == 200
        chunks += list(lines)
    versions = [version for choice in choices(chunks) for version in choice["weight_versions"]]
    assert {0, 6} <= set(versions)
    assert chunks[0]["reward_version"] == "typicality"
    expected_T = typical(lm, chunks[0]["prompt_token_ids"], ids_of(chunks))
    np.testing.assert_allclose(rewards_of(chunks), expected_T.numpy(), atol=1e-4)
    given_again(client)


@pytest.mark.parametrize("wrong", ["potential of another width", "weights that are not finite", "another model"])
def test_what_does_not_fit_changes_nothing(
    server: EngineServer, client: httpx2.Client, tmp_path: Path, wrong: str
) -> None:
    before = given_again(client)
    policy = {name: value.clone() for name, value in server.lm.model.state_dict().items()}
    parts = {"policy": policy, "potential": learned_potential(server.lm, 3).tensors()}
    name = next(iter(policy))
    if wrong.startswith("potential"):
        parts["potential"] = Potential.untrained(7).tensors()
    elif wrong.startswith("weights"):
        policy[name][0, 0] = float("nan")
    else:
        policy[name] = policy[name][:-1]
    manifest = publish_version(tmp_path, 7, parts, model="tiny")
    reply = client.post("/weights", json={"manifest": str(manifest.path)})
    assert reply.status_code == 400
    assert client.get("/v1/models").json()["data"][0] == before


def test_it_begins_with_the_active_version(tmp_path: Path) -> None:
    save_tiny(tmp_path / "tiny", "llama")
    server, registry = load_server(str(tmp_path / "tiny"), "tiny", slots=1), tmp_path / "weights"
    server.restore(registry)
    assert server.engine.weight_version == 0  # nothing was ever activated
    changed = {name: value + 0.01 for name, value in server.lm.model.state_dict().items()}
    potential = learned_potential(server.lm, 4)
    manifest = publish_version(registry, 1, {"policy": changed, "potential": potential.tensors()}, model="tiny")
    set_active(registry, 0)
    server.restore(registry)
    assert server.engine.weight_version == 0
    set_active(registry, 1)
    server.restore(registry)
    assert (server.engine.weight_version, server.rewarder.version) == (1, potential_version(potential))

    again = load_server(str(tmp_path / "tiny"), "tiny", slots=1)
    manifest.file().write_bytes(b"damaged")
    with pytest.raises(StoreError, match="damaged"):
        again.restore(registry)
    assert (again.engine.weight_version, again.rewarder.version) == (0, "typicality")
