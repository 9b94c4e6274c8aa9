"""Real clients, unchanged, against a live gateway: the official SDK, LangChain, the requests of Open WebUI."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import httpx2
import openai
import pytest

from rewardloop.feedback.log.settled import load_completion
from rewardloop.serve.edge.access import Scope
from serving import MODEL, Place, StubEngine, a_place

ASKED: Any = [{"role": "user", "content": "What does the bun cost?"}]
SAID = "The bun costs two coins."


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with a_place(tmp_path_factory.mktemp("place")) as made:
        yield made


@pytest.fixture
def engine(place: Place) -> Iterator[StubEngine]:
    """The stub, as it was before afterwards."""
    yield place.engine
    place.engine.fail_after = place.engine.refuse = None
    place.engine.pause_s = 0.0


@pytest.fixture(scope="module")
def sdk(place: Place) -> Iterator[openai.OpenAI]:
    key = place.key(Scope.INFER, Scope.FEEDBACK)
    with openai.OpenAI(base_url=f"{place.base}/v1", api_key=key, max_retries=0) as client:
        yield client


# ---------------------------------------------------------------- the official SDK


def test_models(sdk: openai.OpenAI) -> None:
    (model,) = sdk.models.list().data
    assert (model.id, model.object, model.owned_by) == (MODEL, "model", "rewardloop")
    assert sdk.models.retrieve(MODEL).id == MODEL


def test_a_chat(sdk: openai.OpenAI) -> None:
    answer = sdk.chat.completions.create(model=MODEL, messages=ASKED, logprobs=True)
    assert answer.object == "chat.completion"
    assert answer.system_fingerprint == "v3"
    (choice,) = answer.choices
    assert (choice.message.role, choice.message.content, choice.finish_reason) == ("assistant", SAID, "stop")
    assert choice.logprobs is not None
    assert choice.logprobs.content is not None
    assert [entry.token for entry in choice.logprobs.content] == ["The", " bun", " costs", " two", " coins."]
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (3, 5, 8)


def test_a_streamed_chat(sdk: openai.OpenAI) -> None:
    options: Any = {"include_usage": True}
    chunks = list(sdk.chat.completions.create(model=MODEL, messages=ASKED, stream=True, stream_options=options))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == SAID
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == 8
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert len({chunk.id for chunk in chunks}) == 1


def test_several_choices(sdk: openai.OpenAI, engine: StubEngine) -> None:
    answer = sdk.chat.completions.create(model=MODEL, messages=ASKED, n=3, seed=7, stop=["\n"], temperature=0.5)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    asked = engine.asked[-1]
    assert (asked["n"], asked["seed"], asked["stop"], asked["temperature"]) == (3, 7, ["\n"], 0.5)


def test_text_parts_and_developers(sdk: openai.OpenAI, engine: StubEngine) -> None:
    parts: Any = [{"type": "text", "text": "What does "}, {"type": "text", "text": "the bun cost?"}]
    messages: Any = [{"role": "developer", "content": "Be kind."}, {"role": "user", "content": parts}]
    sdk.chat.completions.create(model=MODEL, messages=messages)
    assert engine.asked[-1]["messages"] == [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "What does the bun cost?"},
    ]


def test_a_plain_completion(sdk: openai.OpenAI) -> None:
    answer = sdk.completions.create(model=MODEL, prompt="Well:", logprobs=0, echo=True, max_tokens=2)
    (choice,) = answer.choices
    assert (choice.text, choice.finish_reason) == ("Well:The bun", "length")
    assert choice.logprobs is not None
    assert choice.logprobs.tokens == ["The", " bun"]
    assert choice.logprobs.text_offset == [0, 3]
    streamed = list(sdk.completions.create(model=MODEL, prompt="Well:", stream=True, max_tokens=50))
    assert "".join(chunk.choices[0].text for chunk in streamed) == SAID
    assert streamed[-1].choices[0].finish_reason == "stop"


def test_rewards_when_asked_for(sdk: openai.OpenAI) -> None:
    answer: Any = sdk.chat.completions.create(model=MODEL, messages=ASKED, extra_body={"rewards": True})
    assert answer.choices[0].token_rewards == [0.25] * 5
    assert (answer.choices[0].weight_version, answer.choices[0].reward_version) == ("v3", "phi-1")
    chunks = sdk.chat.completions.create(model=MODEL, messages=ASKED, stream=True, extra_body={"rewards": True})
    rewards = [getattr(chunk.choices[0], "token_rewards", []) for chunk in chunks]
    assert [reward for some in rewards for reward in some] == [0.25] * 5
    plain: Any = sdk.chat.completions.create(model=MODEL, messages=ASKED)
    assert not hasattr(plain.choices[0], "token_rewards")


@pytest.mark.parametrize(
    ("changes", "error", "param"),
    [
        ({"model": "another"}, openai.NotFoundError, "model"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, openai.BadRequestError, "tools"),
        ({"temperature": 3}, openai.BadRequestError, "temperature"),
        ({"n": 9}, openai.BadRequestError, "n"),
        ({"stop": ["a"] * 5}, openai.BadRequestError, "stop"),
        ({"messages": []}, openai.BadRequestError, "messages"),
        ({"response_format": {"type": "json_object"}}, openai.BadRequestError, "response_format.type"),
        ({"logit_bias": {"cat": 1}}, openai.BadRequestError, "logit_bias"),
        ({"max_tokens": 0}, openai.BadRequestError, "max_tokens"),
        ({"extra_body": {"unheard_of": 1}}, openai.BadRequestError, "unheard_of"),
    ],
)
def test_what_is_refused_is_named(sdk: openai.OpenAI, changes: Any, error: Any, param: str) -> None:
    with pytest.raises(error) as raised:
        sdk.chat.completions.create(**{"model": MODEL, "messages": ASKED, **changes})
    assert raised.value.param is not None
    assert raised.value.param.startswith(param)
    assert raised.value.request_id.startswith("req_")
    assert raised.value.body["message"]


def test_every_status_is_its_exception(place: Place, sdk: openai.OpenAI, engine: StubEngine) -> None:
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=f"{place.base}/v1", api_key="rl-wrong", max_retries=0).models.list()
    with pytest.raises(openai.PermissionDeniedError):
        reader = place.key(Scope.READ)
        openai.OpenAI(base_url=f"{place.base}/v1", api_key=reader, max_retries=0).chat.completions.create(
            model=MODEL, messages=ASKED
        )
    for refuse, error in [
        ((400, "max_tokens: too many"), openai.BadRequestError),
        ((429, "full"), openai.RateLimitError),
        ((500, "lost"), openai.InternalServerError),
    ]:
        engine.refuse = refuse
        with pytest.raises(error):
            sdk.chat.completions.create(model=MODEL, messages=ASKED)


def test_an_engine_that_breaks_off_is_an_error_and_not_a_cut(sdk: openai.OpenAI, engine: StubEngine) -> None:
    engine.fail_after = 2
    heard = []
    with pytest.raises(openai.APIError, match="broke off"):
        for chunk in sdk.chat.completions.create(model=MODEL, messages=ASKED, stream=True):
            heard.append(chunk.choices[0].delta.content)
    assert "".join(filter(None, heard)) == "The bun"
    with pytest.raises(openai.InternalServerError):
        sdk.chat.completions.create(model=MODEL, messages=ASKED)


def test_whoever_leaves_stops_the_engine(place: Place, engine: StubEngine) -> None:
    engine.pause_s, before = 0.2, engine.cut_off
    asked = {"model": MODEL, "messages": ASKED, "stream": True, "metadata": {"external_id": "left"}}
    with place.owner.stream("POST", "/v1/chat/completions", json=asked) as reply:
        lines = reply.iter_lines()
        while '"content":" bun"' not in next(lines):
            pass
    deadline = 50
    while engine.cut_off == before and deadline:
        deadline -= 1
        place.owner.get("/healthz")
    assert engine.cut_off == before + 1


def test_what_is_stored_is_what_was_said(place: Place, sdk: openai.OpenAI) -> None:
    answer = sdk.chat.completions.create(model=MODEL, messages=ASKED, metadata={"external_id": "mine-1"})
    stored = load_completion(place.gateway.log, answer.id)
    assert stored is not None
    completion = stored.completion
    assert (completion.text, completion.token_ids, completion.prompt_ids) == (SAID, (10, 11, 12, 13, 14), (1, 2, 3))
    assert completion.weight_versions_T.tolist() == [3] * 5
    assert completion.logprobs_T.tolist() == [-0.5] * 5
    unkept = sdk.chat.completions.create(model=MODEL, messages=ASKED, store=False)
    assert load_completion(place.gateway.log, unkept.id) is None


# ---------------------------------------------------------------- LangChain


def test_langchain(place: Place) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own dependencies
        from langchain_openai import ChatOpenAI, OpenAI

        key = place.key(Scope.INFER)
        settings: Any = {"base_url": f"{place.base}/v1", "api_key": key, "model": MODEL, "max_retries": 0}
        chat = ChatOpenAI(**settings)
        answer = chat.invoke("What does the bun cost?")
        assert answer.content == SAID
        assert answer.response_metadata["id"].startswith("chatcmpl-")
        assert answer.usage_metadata is not None
        assert answer.usage_metadata["total_tokens"] == 8
        assert "".join(str(chunk.content) for chunk in chat.stream("What does the bun cost?")) == SAID
        assert OpenAI(**settings).invoke("Well:") == SAID


# ---------------------------------------------------------------- Open WebUI


def test_open_webui(place: Place) -> None:
    """What it sends with ENABLE_FORWARD_USER_INFO_HEADERS: the models first, then streamed chats, titles beside."""
    headers = {
        "X-OpenWebUI-User-Name": "Ada",
        "X-OpenWebUI-User-Id": "u-17",
        "X-OpenWebUI-User-Email": "ada@example.org",
        "X-OpenWebUI-User-Role": "user",
        "X-OpenWebUI-Chat-Id": "chat-1",
    }
    client = place.program(Scope.INFER, Scope.FEEDBACK)
    assert client.get("/v1/models", headers=headers).json()["data"][0]["id"] == MODEL
    asked = {"stream": True, "model": MODEL, "messages": ASKED, "stream_options": {"include_usage": True}}
    with client.stream("POST", "/v1/chat/completions", json=asked, headers=headers) as reply:
        assert reply.headers["content-type"].startswith("text/event-stream")
        lines = [line for line in reply.iter_lines() if line]
    assert lines[-1] == "data: [DONE]"
    title = {"model": MODEL, "messages": ASKED, "stream": False, "max_completion_tokens": 50}
    client.post("/v1/chat/completions", json=title, headers={**headers, "X-Turn-Type": "side"})
    started = [
        event for event in place.gateway.log.read(0, ["completion.started"]) if event.conversation_id == "chat-1"
    ]
    assert [event.body.get("side") for event in started] == [None, True]
    assert {event.subject_id for event in started} == {"external:u-17"}


# ---------------------------------------------------------------- curl


def test_a_thumb_by_external_id_before_and_after(place: Place) -> None:
    program: httpx2.Client = place.program(Scope.FEEDBACK)
    thumb = {"kind": "rating", "value": 1, "scale": {"low": 0, "high": 1}, "annotator": {"external_id": "u-17"}}
    early = program.post("/v1/feedback", json={**thumb, "target": {"external_id": "early"}})
    assert (early.status_code, early.json()["status"]) == (201, "waiting")
    place.say(metadata={"external_id": "early"})
    late = program.post("/v1/feedback", json={**thumb, "target": {"external_id": "early"}})
    assert late.json()["status"] == "accepted"
    found = [item for item in place.owner.get("/api/data").json()["items"] if item["completion"] == SAID]
    assert {item["id"] for item in found} >= {early.json()["id"], late.json()["id"]}
    assert found[0]["annotator"]["name"] == "u-17"
