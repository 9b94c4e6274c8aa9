"""The one WebSocket of a tab: questions and live keys go up, tokens and news come down.

Messages are JSON objects with a `type`; what the page sends carries `n` and is acknowledged, what it gets carries `s`.
What must not be lost is a POST, except live keys, which are many and come while the words do: they are stored as any
feedback and acknowledged after that.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, WebSocket, WebSocketDisconnect
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from rewardloop.errors import RewardLoopError
from rewardloop.feedback.log.events import NewEvent, new_id
from rewardloop.feedback.log.submissions import feedback_event, parse_submission
from rewardloop.serve.edge.access import Caller, access_of, authorize
from rewardloop.serve.edge.errors import ApiError, as_api_error, invalid_request
from rewardloop.serve.edge.limits import FEEDBACK, INFER
from rewardloop.serve.gateway import Gateway, gateway_of
from rewardloop.serve.routes.conversations import own_conversation, started_event
from rewardloop.serve.routes.openai_requests import MOST_TOKENS
from rewardloop.serve.state.hub import Tab
from rewardloop.serve.work.answers import Question, answering

router = APIRouter()

LONGEST_MESSAGE: Final = 1 << 20
REFUSED: Final = 4403

Name = Annotated[str, Field(min_length=1, max_length=100)]


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid")
    n: Annotated[int, Field(ge=0)] | None = None


class Turn(BaseModel):
    """One turn of the conversation."""

    model_config = ConfigDict(extra="forbid")
    role: Literal["system", "user", "assistant"]
    content: Annotated[str, Field(max_length=100_000)]


class Settings(BaseModel):
    """How to sample."""

    model_config = ConfigDict(extra="forbid")
    temperature: Annotated[float, Field(ge=0, le=2)] = 1.0
    max_tokens: Annotated[int, Field(ge=1, le=MOST_TOKENS)] = 128
    seed: Annotated[int, Field(ge=0, lt=2**53)] | None = None
    choices: Annotated[int, Field(ge=1, le=4)] = 1


class Generate(_Closed):
    """Answer this."""

    type: Literal["generate"]
    request: Name
    conversation_id: Name | None = None
    messages: Annotated[list[Turn], Field(min_length=1, max_length=256)] | None = None
    prompt: Annotated[str, Field(max_length=100_000)] | None = None
    settings: Settings = Settings()
    blind: bool = False  # neither rewards nor versions are shown before the judgment


class Cancel(_Closed):
    """Stop answering this."""

    type: Literal["cancel"]
    request: Name


class Live(_Closed):
    """A key pressed while the words appear."""

    type: Literal["live"]
    completion_id: Name
    choice: Annotated[int, Field(ge=0)] = 0
    token_index: Annotated[int, Field(ge=0)]
    value: Literal[-1, 1]
    reaction_ms: Annotated[int, Field(ge=0)]
    key: Name


class Resume(_Closed):
    """Everything after message `last` again."""

    type: Literal["resume"]
    last: Annotated[int, Field(ge=0)]


class Ping(_Closed):
    type: Literal["ping"]


MESSAGE: TypeAdapter[Generate | Cancel | Live | Resume | Ping] = TypeAdapter(
    Annotated[Generate | Cancel | Live | Resume | Ping, Field(discriminator="type")]
)


@router.websocket("/api/socket")
async def socket(ws: WebSocket, tab: str = "") -> None:
    """One tab, for as long as it is open."""
    gateway = gateway_of(ws)
    caller = gateway.identify(ws)
    try:
        authorize(ws, caller, access_of("WEBSOCKET", "/api/socket"))
    except ApiError:
        await ws.close(REFUSED)
        return
    await ws.accept()
    here = gateway.hub.enter(caller.id, tab[:64] or new_id())
    if here.knows_nothing and gateway.policy.versions:  # a page that was open meanwhile may have missed versions
        here.say("policy", **gateway.policy.news())
    gateway.telemetry.sockets.inc()
    sending = asyncio.create_task(_send(ws, here))
    try:
        with suppress(WebSocketDisconnect):
            while True:
                await _receive(ws, gateway, caller, here)
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        gateway.telemetry.sockets.dec()
        gateway.hub.leave(here)


async def _send(ws: WebSocket, tab: Tab) -> None:
    while True:
        for message in await tab.unread():
            await ws.send_json(message)


async def _receive(ws: WebSocket, gateway: Gateway, caller: Caller, tab: Tab) -> None:
    """Take one message, do what it says, acknowledge it."""
    received = await ws.receive()
    if received["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(received.get("code", 1000))
    number: Any = None
    try:
        if (text := received.get("text")) is None:
            raise ApiError(400, "bytes were sent; send JSON as text", code="invalid_json")
        if len(text) > LONGEST_MESSAGE:
            raise ApiError(413, "the message is larger than 1 MiB", code="too_large")
        message = _parse(text)
        number = message.n
        extra = await _act(gateway, caller, tab, message)
    except RewardLoopError as error:
        answer = as_api_error(error)
        await ws.send_json({"type": "ack", "n": number, "ok": False, **answer.body})
        return
    if isinstance(message, Ping):
        await ws.send_json({"type": "pong"})
    elif number is not None:
        await ws.send_json({"type": "ack", "n": number, "ok": True, **extra})


def _parse(text: str) -> Generate | Cancel | Live | Resume | Ping:
    try:
        return MESSAGE.validate_json(text)
    except ValidationError as error:
        raise invalid_request(error.errors(include_url=False)) from error


async def _act(
    gateway: Gateway, caller: Caller, tab: Tab, message: Generate | Cancel | Live | Resume | Ping
) -> dict[str, Any]:
    """Do what a message says; what the acknowledgment says beyond "ok"."""
    match message:
        case Generate():
            gateway.limits.take(INFER, caller.id)
            if message.request in tab.tasks:
                raise ApiError(409, "this request is being answered already", param="request")
            task = asyncio.create_task(_generate(gateway, caller, tab, message))
            tab.tasks[message.request] = task
            task.add_done_callback(lambda _: tab.tasks.pop(message.request, None))
        case Cancel():
            if (running := tab.tasks.get(message.request)) is not None:
                running.cancel()
        case Live():
            return await _press(gateway, caller, message)
        case Resume():
            if not tab.resume(message.last):
                raise ApiError(409, "what came after that is not known here any more; begin anew", param="last")
        case Ping():
            pass
    return {}


async def _press(gateway: Gateway, caller: Caller, message: Live) -> dict[str, Any]:
    gateway.limits.take(FEEDBACK, caller.id)
    given = parse_submission(
        {
            "kind": "live",
            "target": {"completion_id": message.completion_id, "choice": message.choice},
            "value": message.value,
            "token_index": message.token_index,
            "reaction_ms": message.reaction_ms,
        }
    )
    (stored,) = await gateway.append(feedback_event(given, caller.id, caller.kind, idem_key=message.key))
    if stored.outcome == "stored":
        gateway.telemetry.feedback.labels("live").inc()
        gateway.hub.tell_feedback(caller, stored)
    return {"seq": stored.seq, "id": stored.id}


async def _generate(gateway: Gateway, caller: Caller, tab: Tab, message: Generate) -> None:
    """Answer, and say every step of it to the tab."""
    spoken: set[int] = set()
    try:
        question = await _question(gateway, caller, message)
        async with answering(gateway, caller, question) as (answer, pieces):
            tab.say(
                "started",
                request=message.request,
                completion_id=question.completion_id,
                choices=len(answer.choices),
                weight_version=None if message.blind else f"v{(await gateway.engine.model()).weight_version}",
                conversation_id=question.conversation_id,
            )
            async for piece in pieces:
                _say_piece(tab, message, piece)
                if piece.finish_reason is not None:
                    spoken.add(piece.index)
                    choice = answer.choices[piece.index]
                    usage = {"prompt_tokens": len(answer.prompt_ids), "completion_tokens": len(choice.tokens)}
                    tab.say(
                        "finished",
                        request=message.request,
                        choice=piece.index,
                        finish_reason=piece.finish_reason,
                        usage=usage,
                        reward_version=None if message.blind else answer.reward_version,
                    )
    except asyncio.CancelledError:
        for index in set(range(message.settings.choices)) - spoken:
            tab.say("finished", request=message.request, choice=index, finish_reason="cancelled", usage=None)
        raise
    except RewardLoopError as error:
        tab.say("failed", request=message.request, **as_api_error(error).body)


def _say_piece(tab: Tab, message: Generate, piece: Any) -> None:
    """Tokens with their text and what each is worth."""
    rewards = iter(piece.rewards)
    shown: list[dict[str, Any]] = [{"text": ""} for _ in piece.tokens]
    if not message.blind:
        shown = [
            {"text": "", "logprob": token.logprob, "reward": next(rewards, None), "version": f"v{token.version}"}
            for token in piece.tokens
        ]
    if shown:
        shown[-1]["text"] = piece.text  # a stop sequence, or half a character, may hold text back
    elif piece.text:
        shown = [{"text": piece.text}]
    tab.say("tokens", request=message.request, choice=piece.index, tokens=shown)


async def _question(gateway: Gateway, caller: Caller, message: Generate) -> Question:
    if (message.messages is None) == (message.prompt is None):
        raise ApiError(400, "give either messages or prompt", param="messages")
    info = await gateway.engine.model()
    prompt: Any = message.prompt if message.messages is None else [turn.model_dump() for turn in message.messages]
    sampling = {"temperature": message.settings.temperature, "n": message.settings.choices}
    if message.settings.seed is not None:
        sampling["seed"] = message.settings.seed
    return Question(
        completion_id=f"{'cmpl' if message.messages is None else 'chatcmpl'}-{new_id()}",
        prompt=prompt,
        model=info.id,
        sampling=sampling,
        max_tokens=min(message.settings.max_tokens, info.context or MOST_TOKENS),
        rewards=True,
        conversation_id=await _conversation(gateway, caller, message),
        metadata={"page": True, "blind": message.blind},
    )


async def _conversation(gateway: Gateway, caller: Caller, message: Generate) -> str | None:
    """The conversation that this belongs to; a new one where none is named. Compared answers belong to none."""
    if message.settings.choices > 1 or message.blind:
        return None
    if message.conversation_id is not None:
        await own_conversation(gateway, caller, message.conversation_id)
        return message.conversation_id
    first = message.prompt if message.messages is None else message.messages[-1].content
    event: NewEvent = started_event(caller, str(first))
    await gateway.append(event)
    return event.conversation_id
