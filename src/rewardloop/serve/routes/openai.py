"""GET /v1/models, POST /v1/chat/completions, POST /v1/completions: any OpenAI client works unchanged."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from typing import Any, Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from rewardloop.feedback.log.events import new_id
from rewardloop.serve.edge.access import Caller
from rewardloop.serve.edge.errors import ApiError, as_api_error
from rewardloop.serve.edge.limits import INFER
from rewardloop.serve.engine.client import ModelInfo, Piece, Spoken
from rewardloop.serve.gateway import Gateway, TheCaller, TheGateway
from rewardloop.serve.routes.openai_requests import (
    DEFAULT_TOKENS,
    MOST_TOKENS,
    ChatRequest,
    CompletionRequest,
    Sampling,
)
from rewardloop.serve.work.answers import Answer, Choice, Question, answering

router = APIRouter(tags=["OpenAI"])

DONE: Final = b"data: [DONE]\n\n"
SIDE_HEADER: Final = "x-turn-type"


@router.get("/v1/models")
async def list_models(gateway: TheGateway) -> JSONResponse:
    """The models that can be asked."""
    return JSONResponse({"object": "list", "data": [_model(await gateway.engine.model())]})


@router.get("/v1/models/{model}")
async def get_model(model: str, gateway: TheGateway) -> JSONResponse:
    """One model."""
    info = await gateway.engine.model()
    _require_model(model, info)
    return JSONResponse(_model(info))


@router.post("/v1/chat/completions")
async def chat_completions(asked: ChatRequest, http: Request, gateway: TheGateway, caller: TheCaller) -> Response:
    """Answer a conversation."""
    prompt = [message.turn() for message in asked.messages]
    question = await _question(gateway, caller, http, asked, "chatcmpl", prompt, asked.limit)
    return await _answer(gateway, caller, http, asked, question, _Chat(asked))


@router.post("/v1/completions")
async def completions(asked: CompletionRequest, http: Request, gateway: TheGateway, caller: TheCaller) -> Response:
    """Continue a text."""
    limit = 16 if asked.max_tokens is None else asked.max_tokens  # what OpenAI takes where nothing is said
    question = await _question(gateway, caller, http, asked, "cmpl", asked.text_or_ids, limit)
    return await _answer(gateway, caller, http, asked, question, _Plain(asked))


# ---------------------------------------------------------------- from request to question


async def _question(
    gateway: Gateway,
    caller: Caller,
    http: Request,
    asked: ChatRequest | CompletionRequest,
    prefix: str,
    prompt: Any,
    limit: int | None,
) -> Question:
    gateway.limits.take(INFER, caller.id)
    info = await gateway.engine.model()
    _require_model(asked.model, info)
    headers = http.headers
    trusted = caller.kind == "key"
    user = headers.get("x-openwebui-user-id") if trusted else None
    top = asked.top_logprobs if isinstance(asked, ChatRequest) else asked.logprobs
    return Question(
        completion_id=f"{prefix}-{new_id()}",
        prompt=prompt,
        model=info.id,
        sampling=asked.sampling(),
        max_tokens=min(limit or DEFAULT_TOKENS, info.context or MOST_TOKENS),
        top_logprobs=top or 0,
        rewards=bool(asked.rewards),
        stored=not (isinstance(asked, ChatRequest) and asked.store is False),
        side=headers.get(SIDE_HEADER, "").lower() == "side",
        external_id=asked.external_id or headers.get("x-external-id"),
        conversation_id=headers.get("x-openwebui-chat-id") if trusted else None,
        subject_id=f"external:{user or asked.user}" if trusted and (user or asked.user) else None,
        metadata={name: value for name, value in (asked.metadata or {}).items() if name != "external_id"},
    )


def _require_model(model: str, info: ModelInfo) -> None:
    if model != info.id:
        raise ApiError(
            404,
            f"there is no model {model[:100]!r} here; this gateway serves {info.id!r}",
            param="model",
            code="model_not_found",
        )


def _model(info: ModelInfo) -> dict[str, Any]:
    return {
        "id": info.id,
        "object": "model",
        "created": 0,
        "owned_by": "rewardloop",
        "context_length": info.context,
        "weight_version": f"v{info.weight_version}",
    }


# ---------------------------------------------------------------- from answer to reply


async def _answer(
    gateway: Gateway, caller: Caller, http: Request, asked: Sampling, question: Question, form: _Chat | _Plain
) -> Response:
    stack = AsyncExitStack()
    try:
        answer, pieces = await stack.enter_async_context(answering(gateway, caller, question))
        if asked.stream:
            events = _stream(stack, answer, pieces, form)
            first = await anext(events)  # what the engine refuses is a plain error, not a broken stream
            return StreamingResponse(_joined(first, events), media_type="text/event-stream")
        async with stack:
            await _until_told(http, pieces)
            return JSONResponse(form.whole(answer))
    except BaseException:
        await stack.aclose()
        raise


async def _until_told(http: Request, pieces: AsyncIterator[Piece]) -> None:
    """Hear the answer to its end, or until nobody is listening any more."""

    async def hear() -> None:
        async for _ in pieces:
            pass

    hearing, leaving = asyncio.create_task(hear()), asyncio.create_task(_disconnected(http))
    try:
        await asyncio.wait({hearing, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if hearing.done():
            hearing.result()
    finally:
        for task in (hearing, leaving):
            task.cancel()
        await asyncio.gather(hearing, leaving, return_exceptions=True)


async def _disconnected(http: Request) -> None:
    while (await http.receive())["type"] != "http.disconnect":
        pass


async def _joined(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for event in rest:
        yield event


async def _stream(
    stack: AsyncExitStack,
    answer: Answer,
    pieces: AsyncIterator[Piece],
    form: _Chat | _Plain,
) -> AsyncIterator[bytes]:
    """Server-sent events; an error in mid-answer is an event, too, and the connection stays whole."""
    async with stack:
        try:
            for index in range(len(answer.choices)):
                for opening in form.opening(answer, index):
                    yield _sse(opening)
            async for piece in pieces:
                for chunk in form.chunks(answer, piece):
                    yield _sse(chunk)
            for closing in form.closing(answer):
                yield _sse(closing)
            yield DONE
        except Exception as error:  # noqa: BLE001 - said to the client in its own words
            yield _sse(as_api_error(error).body)


def _sse(document: Mapping[str, Any]) -> bytes:
    return b"data: " + json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


def _usage(answer: Answer) -> dict[str, int]:
    spoken = sum(len(choice.tokens) for choice in answer.choices)
    read = len(answer.prompt_ids)
    return {"prompt_tokens": read, "completion_tokens": spoken, "total_tokens": read + spoken}


def _logprob(token: Spoken) -> dict[str, Any]:
    return {
        "token": token.text,
        "logprob": token.logprob,
        "bytes": list(token.text.encode()),
        "top_logprobs": [dict(each) for each in token.top],
    }


class _Form:
    """What both forms of an answer share."""

    def __init__(self, asked: Sampling) -> None:
        self.asked = asked

    def head(self, answer: Answer, kind: str) -> dict[str, Any]:
        return {
            "id": answer.question.completion_id,
            "object": kind,
            "created": answer.created,
            "model": answer.question.model,
            "system_fingerprint": f"v{answer.weight_version}",
        }

    def usage_or_null(self) -> dict[str, Any]:
        return {"usage": None} if self.asked.wants_usage else {}

    def rewards(self, answer: Answer, rewards: list[float]) -> dict[str, Any]:
        """Ours, when asked for. They may lag behind the text: as many come in all as there are tokens."""
        if not self.asked.rewards:
            return {}
        versions = {"weight_version": f"v{answer.weight_version}", "reward_version": answer.reward_version}
        return {"token_rewards": rewards, **versions}


class _Chat(_Form):
    """Chat completions."""

    asked: ChatRequest

    def whole(self, answer: Answer) -> dict[str, Any]:
        choices = [
            {
                "index": index,
                "message": {"role": "assistant", "content": choice.text, "refusal": None},
                "finish_reason": choice.finish_reason,
                "logprobs": self._logprobs(choice.tokens),
                **self.rewards(answer, choice.rewards),
            }
            for index, choice in enumerate(answer.choices)
        ]
        return {**self.head(answer, "chat.completion"), "choices": choices, "usage": _usage(answer)}

    def opening(self, answer: Answer, index: int) -> list[dict[str, Any]]:
        delta = {"role": "assistant", "content": "", "refusal": None}
        return [self._chunk(answer, {"index": index, "delta": delta, "finish_reason": None, "logprobs": None})]

    def chunks(self, answer: Answer, piece: Piece) -> list[dict[str, Any]]:
        index = piece.index
        said = {
            "index": index,
            "delta": {"content": piece.text},
            "finish_reason": None,
            "logprobs": self._logprobs(piece.tokens),
            **self.rewards(answer, list(piece.rewards)),
        }
        chunks = [self._chunk(answer, said)]
        if piece.finish_reason is not None:
            ended = {"index": index, "delta": {}, "finish_reason": piece.finish_reason, "logprobs": None}
            chunks.append(self._chunk(answer, ended))
        return chunks

    def closing(self, answer: Answer) -> list[dict[str, Any]]:
        if not self.asked.wants_usage:
            return []
        return [{**self.head(answer, "chat.completion.chunk"), "choices": [], "usage": _usage(answer)}]

    def _chunk(self, answer: Answer, choice: dict[str, Any]) -> dict[str, Any]:
        return {**self.head(answer, "chat.completion.chunk"), "choices": [choice], **self.usage_or_null()}

    def _logprobs(self, tokens: Any) -> dict[str, Any] | None:
        return {"content": [_logprob(token) for token in tokens], "refusal": None} if self.asked.logprobs else None


class _Plain(_Form):
    """Plain completions."""

    asked: CompletionRequest

    def whole(self, answer: Answer) -> dict[str, Any]:
        choices = [
            {
                "index": index,
                "text": self._echo(answer) + choice.text,
                "finish_reason": choice.finish_reason,
                "logprobs": self._logprobs(choice.tokens, [0, *choice.ends]),
                **self.rewards(answer, choice.rewards),
            }
            for index, choice in enumerate(answer.choices)
        ]
        return {**self.head(answer, "text_completion"), "choices": choices, "usage": _usage(answer)}

    def opening(self, answer: Answer, index: int) -> list[dict[str, Any]]:
        echoed = self._echo(answer)
        return [self._chunk(answer, {"index": index, "text": echoed, "finish_reason": None, "logprobs": None})] * bool(
            echoed
        )

    def chunks(self, answer: Answer, piece: Piece) -> list[dict[str, Any]]:
        choice: Choice = answer.choices[piece.index]
        said = {
            "index": piece.index,
            "text": piece.text,
            "finish_reason": piece.finish_reason,
            "logprobs": self._logprobs(piece.tokens, [0, *choice.ends][-len(piece.tokens) - 1 :]),
            **self.rewards(answer, list(piece.rewards)),
        }
        return [self._chunk(answer, said)]

    def closing(self, answer: Answer) -> list[dict[str, Any]]:
        if not self.asked.wants_usage:
            return []
        return [{**self.head(answer, "text_completion"), "choices": [], "usage": _usage(answer)}]

    def _chunk(self, answer: Answer, choice: dict[str, Any]) -> dict[str, Any]:
        return {**self.head(answer, "text_completion"), "choices": [choice], **self.usage_or_null()}

    def _echo(self, answer: Answer) -> str:
        prompt = answer.question.prompt
        return prompt if self.asked.echo and isinstance(prompt, str) else ""

    def _logprobs(self, tokens: Any, offsets: list[int]) -> dict[str, Any] | None:
        if self.asked.logprobs is None:
            return None
        return {
            "tokens": [token.text for token in tokens],
            "token_logprobs": [token.logprob for token in tokens],
            "top_logprobs": [{each["token"]: each["logprob"] for each in token.top} for token in tokens],
            "text_offset": offsets[: len(tokens)],
        }
