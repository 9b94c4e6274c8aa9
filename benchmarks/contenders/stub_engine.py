"""An engine that says numbered tokens at an even pace, each with the time at which it was sent; python -m ... SOCKET"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

PAUSE_S = 1 / 20


async def health(_: Request) -> Response:
    return Response()


async def models(_: Request) -> Response:
    return JSONResponse({"data": [{"id": "stub", "max_model_len": 100_000, "weight_version": 0, "chat": True}]})


async def say(http: Request) -> Response:
    asked = await http.json()
    return StreamingResponse(events(asked["max_tokens"]), media_type="text/event-stream")


async def events(count: int) -> AsyncIterator[bytes]:
    yield sse({"choices": [], "prompt_token_ids": [1, 2, 3]})
    due = time.perf_counter()
    for at in range(count):
        word = f"{at}@{time.time():.6f} "
        entry = {"token": word, "logprob": -1.0, "bytes": [], "top_logprobs": []}
        choice = {
            "index": 0,
            "delta": {"content": word},
            "finish_reason": "length" if at == count - 1 else None,
            "token_ids": [at],
            "logprobs": {"content": [entry]},
            "weight_versions": [0],
        }
        yield sse({"choices": [choice]})
        due += PAUSE_S
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
    yield sse({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": count, "total_tokens": 3 + count}})
    yield b"data: [DONE]\n\n"


def sse(document: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(document).encode() + b"\n\n"


app = Starlette(
    routes=[
        Route("/health", health),
        Route("/v1/models", models),
        Route("/v1/chat/completions", say, methods=["POST"]),
    ]
)

if __name__ == "__main__":
    uvicorn.run(app, uds=sys.argv[1], log_level="warning")
