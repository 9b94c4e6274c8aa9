"""A vLLM server in place of the engine: the chunks of its two endpoints, as it writes them with `return_token_ids`."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from rewardloop.feedback.log.settled import load_completion
from serving import MODEL, Place, StubEngine, a_place

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
