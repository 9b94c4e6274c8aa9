"""The engine as the gateway sees it: a vLLM-shaped server behind a socket or a URL, always asked for a stream."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx2

from rewardloop.serve.edge.errors import ApiError
from rewardloop.serve.engine.stream import EngineStream, post

CONNECT_S: Final = 2.0
ANSWER_S: Final = 10.0  # for what an engine knows without thinking
WEIGHTS_S: Final = 120.0  # for reading and verifying a version; a million parameters take a tenth of a second
SILENCE_S: Final = 60.0  # longest wait for the next token
KNOWN_S: Final = 1.0  # how long what the engine said of its model is taken as it was


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What the engine serves."""

    id: str
    context: int  # tokens
    weight_version: int
    chat: bool
    parameters: int | None
    reward_version: str | None


@dataclass(frozen=True, slots=True)
class Spoken:
    """A sampled token."""

    id: int
    text: str
    logprob: float
    version: int
    top: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Opening:
    """The engine has read the prompt."""

    prompt_ids: tuple[int, ...]
    reward_version: str | None


@dataclass(frozen=True, slots=True)
class Piece:
    """What has become known of one choice."""

    index: int
    text: str
    tokens: tuple[Spoken, ...]
    rewards: tuple[float, ...]
    finish_reason: str | None


@dataclass(frozen=True, slots=True)
class Closing:
    """All choices have ended."""

    prompt_tokens: int
    completion_tokens: int


Said = Opening | Piece | Closing


class EngineDownError(ApiError):
    """Nobody listens where the engine should be: what was asked has not come to it."""


class EngineClient:
    """Talks to one engine."""

    def __init__(self, *, socket: str | None = None, url: str | None = None) -> None:
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=64)
        transport = httpx2.AsyncHTTPTransport(uds=socket, limits=limits)
        timeout = httpx2.Timeout(SILENCE_S, connect=CONNECT_S)
        self._url, self._socket = url or "http://engine", socket
        self._http = httpx2.AsyncClient(transport=transport, base_url=self._url, timeout=timeout)
        self._known: ModelInfo | None = None
        self._known_at = 0.0
        self.last: ModelInfo | None = None  # what was known of the model before the engine went away
        self._asking = asyncio.Lock()

    async def close(self) -> None:
        await self._http.aclose()

    async def model(self) -> ModelInfo:
        """What is being served, as of a second ago at most. Raises ApiError 503 while the engine is not there."""
        async with self._asking:  # one question for all who want to know
            if self._known is None or time.monotonic() - self._known_at > KNOWN_S:
                self._known = None
                self._known = self.last = await self._ask()
                self._known_at = time.monotonic()
            return self._known

    async def _ask(self) -> ModelInfo:
        with _unreachable_is_503():
            reply = await self._http.get("/v1/models", timeout=ANSWER_S)
            first = reply.json()["data"][0]
        return ModelInfo(
            id=first["id"],
            context=int(first.get("max_model_len") or 0),
            weight_version=int(first.get("weight_version") or 0),
            chat=bool(first.get("chat", True)),
            parameters=first.get("parameters"),
            reward_version=first.get("reward_version"),
        )

    async def load_weights(self, manifest: Path | None) -> None:
        """Serve this version from the next token on; None: the model as it was given.

        Raises ApiError: 409 with the engine's words where it refuses and goes on as before, 503 where it breaks off;
        EngineDownError where it is not there.
        """
        with _unreachable_is_503():
            given = {"manifest": None if manifest is None else str(manifest.resolve())}
            reply = await self._http.post("/weights", json=given, timeout=WEIGHTS_S)
        async with self._asking:
            self._known = None
        if reply.status_code != 200:
            raise ApiError(409, _message(reply.status_code, reply.content), param="version", code="engine_refused")

    async def healthy(self) -> bool:
        try:
            return (await self._http.get("/health", timeout=CONNECT_S)).status_code == 200
        except httpx2.HTTPError:
            return False

    @asynccontextmanager
    async def say(self, request: Mapping[str, Any]) -> AsyncIterator[AsyncGenerator[Said]]:
        """The answer to a chat (`messages`) or completion (`prompt`) request, as it is spoken.

        Leaving the context takes the request out of the engine. Raises ApiError: 400 for what the engine refuses, 429
        when it is full, 503 when it is not there or falls silent in mid-answer.
        """
        path = "/v1/chat/completions" if "messages" in request else "/v1/completions"
        asked = {**request, "stream": True}
        async with AsyncExitStack() as stack:
            with _unreachable_is_503():
                opening = post(self._url, path, asked, socket=self._socket, connect_s=CONNECT_S, silence_s=SILENCE_S)
                reply = await stack.enter_async_context(opening)
                if reply.status != 200:
                    body = b"".join([block async for block in reply.blocks(ANSWER_S)])
                    raise _refusal(reply.status, body, reply.headers)
            yield _said(reply)


async def _said(reply: EngineStream) -> AsyncGenerator[Said]:
    ended = False
    with _unreachable_is_503():
        async for event in _events(reply):
            if event == b"[DONE]":
                ended = True
                break
            document = json.loads(event)
            if "error" in document:
                raise ApiError(503, str(document["error"].get("message")), code="engine_failed")
            for said in _read(document):
                yield said
    if not ended:
        raise ApiError(503, "the engine broke off in mid-answer; try again", code="engine_unavailable")


async def _events(reply: EngineStream) -> AsyncIterator[bytes]:
    """The data of server-sent events."""
    rest = b""
    async for block in reply.blocks(SILENCE_S):
        *whole, rest = (rest + block).split(b"\n\n")
        for event in whole:
            if event.startswith(b"data: "):
                yield event[6:]


def _tokens(choice: Mapping[str, Any]) -> tuple[Spoken, ...]:
    """The sampled tokens of a chunk. Log-probs come in the form of chats, or in that of completions."""
    ids = choice.get("token_ids") or []
    told = choice.get("logprobs") or {}
    if "tokens" in told:
        tops = told.get("top_logprobs") or [None] * len(ids)
        entries = [
            {"token": token, "logprob": logprob, "top_logprobs": [_alternative(*each) for each in (top or {}).items()]}
            for token, logprob, top in zip(told["tokens"], told["token_logprobs"], tops, strict=True)
        ]
    else:
        entries = told.get("content") or []
    versions = choice.get("weight_versions") or [0] * len(ids)
    return tuple(
        Spoken(
            _whole(token_id),
            _text(entry["token"]),
            _number(entry["logprob"]),
            _whole(version),
            tuple(entry["top_logprobs"]),
        )
        for token_id, entry, version in zip(ids, entries, versions, strict=True)
    )


def _alternative(token: str, logprob: float) -> dict[str, Any]:
    return {"token": token, "logprob": logprob, "bytes": list(token.encode())}


def _read(document: Mapping[str, Any]) -> list[Said]:
    said: list[Said] = []
    if (prompt_ids := _prompt_ids(document)) is not None:
        said.append(Opening(tuple(map(_whole, prompt_ids)), _maybe_text(document.get("reward_version"))))
    said += [_piece(choice) for choice in document["choices"]]
    if (usage := document.get("usage")) is not None and not document["choices"]:
        said.append(Closing(_whole(usage["prompt_tokens"]), _whole(usage["completion_tokens"])))
    return said


def _prompt_ids(document: Mapping[str, Any]) -> list[int] | None:
    """Beside the choices, or in the first one, as vLLM has it for completions."""
    if document.get("prompt_token_ids") is not None:
        return list(document["prompt_token_ids"])
    first = document["choices"][0] if document["choices"] else {}
    found = first.get("prompt_token_ids")
    return None if found is None else list(found)


def _piece(choice: Mapping[str, Any]) -> Piece:
    text = choice["delta"].get("content") if "delta" in choice else choice["text"]
    rewards = tuple(map(_number, choice.get("token_rewards") or ()))
    reason = _maybe_text(choice.get("finish_reason"))
    return Piece(_whole(choice["index"]), _maybe_text(text) or "", _tokens(choice), rewards, reason)


# By hand, because they run for every token. What they raise is what a document raises that is built otherwise.


def _whole(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**31:
        raise ValueError(f"{value!r} is not a number of the engine's")
    return value


def _number(value: Any) -> float:
    if not math.isfinite(value):
        raise ValueError(f"{value!r} is not finite")
    return float(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not a text")
    return value


def _maybe_text(value: Any) -> str | None:
    return None if value is None else _text(value)


def _message(status: int, body: bytes) -> str:
    """What the engine says of its refusal."""
    try:
        return str(json.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"the engine answered with status {status}"


def _refusal(status: int, body: bytes, headers: Mapping[str, str]) -> ApiError:
    message = _message(status, body)
    if status == 429:
        return ApiError(429, message, code="engine_full", headers={"retry-after": headers.get("retry-after", "1")})
    if status < 500:
        name, colon, _ = message.partition(":")
        return ApiError(400, message, param=name if colon and name.isidentifier() else None)
    return ApiError(503, message, code="engine_failed", headers={"retry-after": "1"})


# what a document raises that is not built as an engine builds it
_NOT_UNDERSTOOD: Final = ValueError | KeyError | TypeError | AttributeError | IndexError


class _unreachable_is_503:  # noqa: N801 - reads as a sentence where it is used
    """What goes wrong between gateway and engine is one clear error."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, httpx2.HTTPError | OSError | _NOT_UNDERSTOOD):
            kind = EngineDownError if isinstance(error, httpx2.ConnectError) else ApiError
            raise kind(
                503,
                "the engine is not answering; it is started again by itself, try again in a moment",
                code="engine_unavailable",
                headers={"retry-after": "1"},
            ) from error
