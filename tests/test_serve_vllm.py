"""A vLLM server in place of the engine: the chunks of its two endpoints, as it writes them with `return_token_ids`."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from rewardloop.feedback.log.settled import load_completion
from serving import MODEL, Place, StubEngine, a_place

FUZZ = int(os.environ.get("REWARDLOOP_FUZZ", "60"))

# Shapes of vllm/entrypoints/openai/{chat_completion,completion}/protocol.py, one choice, two tokens.
CHAT = [
    {
        "id": "chatcmpl-9",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": MODEL,
        "choices": [
            {"index": 0, "delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}
        ],
        "prompt_token_ids": [1, 2, 3],
    },
    {
        "id": "chatcmpl-9",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": MODEL,
        "choices": [
            {
                "index": 0,
                "delta": {"content": "Two coins"},
                "logprobs": {
                    "content": [
                        {"token": "Two", "logprob": -0.1, "bytes": [84, 119, 111], "top_logprobs": []},
                        {"token": " coins", "logprob": -0.2, "bytes": [32], "top_logprobs": []},
                    ]
                },
                "finish_reason": "stop",
                "stop_reason": None,
                "token_ids": [7, 8],
            }
        ],
    },
]
PLAIN = [
    {
        "id": "cmpl-9",
        "object": "text_completion",
        "created": 1,
        "model": MODEL,
        "choices": [
            {
                "index": 0,
                "text": "Two coins",
                "logprobs": {
                    "text_offset": [0, 3],
                    "token_logprobs": [-0.1, -0.2],
                    "tokens": ["Two", " coins"],
                    "top_logprobs": [{"Two": -0.1}, {" coins": -0.2}],
                },
                "finish_reason": "length",
                "stop_reason": None,
                "prompt_token_ids": [1, 2, 3],
                "token_ids": [7, 8],
            }
        ],
    },
]
USAGE = {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}}


class Vllm(StubEngine):
    """Answers as a vLLM server does."""

    async def _events(self, asked: dict[str, Any]) -> AsyncIterator[bytes]:
        # it reads `logprobs` as a flag in a chat and as a number in a completion
        assert isinstance(asked["logprobs"], bool) == ("messages" in asked)
        for chunk in [*(CHAT if "messages" in asked else PLAIN), USAGE]:
            yield f"data: {json.dumps(chunk)}\n\n".encode()
        yield b"data: [DONE]\n\n"


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with a_place(tmp_path, Vllm()) as made:
        yield made


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
def test_what_it_says_is_heard_and_stored(place: Place, path: str, stream: bool) -> None:
    chat = "chat" in path
    prompt = {"messages": [{"role": "user", "content": "x"}]} if chat else {"prompt": "x"}
    wanted = {"logprobs": True if chat else 1, "metadata": {"external_id": "v"}}
    reply = place.owner.post(path, json={"model": MODEL, "stream": stream, **prompt, **wanted})
    assert reply.status_code == 200, reply.text
    events = [json.loads(line[6:]) for line in reply.text.splitlines() if line.startswith("data: {")]
    said = events if stream else [reply.json()]
    stored = load_completion(place.gateway.log, said[0]["id"])
    assert stored is not None
    completion = stored.completion
    assert (completion.text, completion.token_ids, completion.prompt_ids) == ("Two coins", (7, 8), (1, 2, 3))
    assert completion.logprobs_T.tolist() == pytest.approx([-0.1, -0.2])


class Babbling(StubEngine):
    """Sends what no engine sends."""

    sends: bytes = b""

    async def _events(self, asked: dict[str, Any]) -> AsyncIterator[bytes]:
        yield self.sends


FIELDS = ["choices", "index", "text", "delta", "content", "logprobs", "token_ids", "usage", "error", "finish_reason"]
ODD = [
    *("null", "[]", "7", '"x"', "{", "{}", "[DONE]", '{"error": 3}', '{"choices": null}', '{"choices": [{}]}'),
    '{"choices": [{"index": 5, "text": "a", "finish_reason": "stop"}]}',
    '{"choices": [{"index": -1, "text": "a", "finish_reason": "stop"}]}',
    '{"choices": [{"index": "x", "text": "a"}]}',
    '{"choices": [{"index": 0, "text": 7, "finish_reason": "stop"}]}',
    '{"choices": [{"index": 0, "text": "a", "finish_reason": "because"}]}',
    '{"choices": [{"index": 0, "text": "a", "token_ids": [1], "weight_versions": ["v"], "finish_reason": "stop", '
    '"logprobs": {"content": [{"token": 3, "logprob": null, "top_logprobs": []}]}}]}',
    '{"choices": [{"index": 0, "text": "a", "token_rewards": ["much"], "finish_reason": "stop"}]}',
]
chunks = st.one_of(
    st.binary(max_size=30),
    st.sampled_from(ODD),
    st.recursive(
        st.none() | st.integers() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(FIELDS), inner),
        max_leaves=12,
    ).map(json.dumps),
)


@settings(max_examples=FUZZ, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(sent=st.lists(chunks, max_size=4), stream=st.booleans())
def test_an_engine_that_babbles_is_a_clear_error(babble: Place, sent: list[str | bytes], stream: bool) -> None:
    events = [each if isinstance(each, bytes) else each.encode() for each in sent]
    assert isinstance(babble.engine, Babbling)
    babble.engine.sends = b"".join(b"data: " + event + b"\n\n" for event in events)
    asked = {"model": MODEL, "prompt": "What?", "stream": stream}
    with capture_logs() as logs:
        reply = babble.owner.post("/v1/completions", json=asked)
    assert not [entry for entry in logs if entry["log_level"] == "error"]
    if stream and reply.status_code == 200:
        assert reply.text.endswith("data: [DONE]\n\n") or '"error"' in reply.text
    else:
        assert reply.status_code in (200, 503)
        assert reply.status_code == 200 or reply.json()["error"]["message"]


@pytest.fixture(scope="module")
def babble(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with a_place(tmp_path_factory.mktemp("place"), Babbling()) as made:
        yield made
