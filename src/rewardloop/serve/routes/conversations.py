"""Conversations of the page: a list of one's own, and each as its turns with their answers."""

from __future__ import annotations

import time
from typing import Any, Final

from fastapi import APIRouter
from sqlalchemy import func, select
from starlette.responses import JSONResponse, Response

from rewardloop.feedback.log.database import reading
from rewardloop.feedback.log.event_log import LogReader
from rewardloop.feedback.log.events import Event, NewEvent, new_id
from rewardloop.feedback.log.schema import event, feedback_current, feedback_target
from rewardloop.serve.edge.access import Caller
from rewardloop.serve.edge.errors import ApiError
from rewardloop.serve.edge.times import iso
from rewardloop.serve.gateway import Gateway, TheCaller, TheGateway

router = APIRouter(tags=["page"])

TITLE: Final = 60  # characters
MOST: Final = 200  # conversations in the list


@router.get("/api/conversations")
async def conversations(gateway: TheGateway, caller: TheCaller) -> JSONResponse:
    """My conversations, the latest first."""
    return JSONResponse({"items": await gateway.read(_list, gateway.log, caller.id)})


@router.post("/api/conversations", status_code=201)
async def start(gateway: TheGateway, caller: TheCaller) -> JSONResponse:
    """A new, empty one."""
    opened = started_event(caller, "")
    await gateway.append(opened)
    return JSONResponse({"id": opened.conversation_id, "title": "", "updated_at": iso(time.time())}, 201)


@router.get("/api/conversations/{conversation_id}")
async def conversation(conversation_id: str, gateway: TheGateway, caller: TheCaller) -> JSONResponse:
    """One conversation with its answers, and what I said of them."""
    opened = await own_conversation(gateway, caller, conversation_id)
    turns = await gateway.read(_turns, gateway, conversation_id, caller.id)
    return JSONResponse({"id": conversation_id, "title": opened.body.get("title", ""), "turns": turns})


@router.delete("/api/conversations/{conversation_id}", status_code=204)
async def remove(conversation_id: str, gateway: TheGateway, caller: TheCaller) -> Response:
    """Take it from my list. What was judged stays judged."""
    await own_conversation(gateway, caller, conversation_id)
    gone = NewEvent(
        kind="conversation.deleted", actor_id=caller.id, actor_kind=caller.kind, conversation_id=conversation_id
    )
    await gateway.append(gone)
    return Response(status_code=204)


@router.get("/api/completions/{completion_id}")
async def completion(completion_id: str, gateway: TheGateway, caller: TheCaller) -> JSONResponse:
    """All choices of an answer that I asked for, with versions: what a blind choice was between."""
    choices = await gateway.read(_choices, gateway.log, completion_id, caller.id)
    if not choices:
        raise ApiError(404, "there is no such answer of yours", param="completion_id")
    return JSONResponse({"id": completion_id, "choices": choices})


@router.get("/api/feedback/mine")
async def my_feedback(conversation_id: str, gateway: TheGateway, caller: TheCaller) -> JSONResponse:
    """What I said of the answers of a conversation."""
    await own_conversation(gateway, caller, conversation_id)
    found = await gateway.read(_feedback, gateway, conversation_id, caller.id)
    return JSONResponse({"items": found})


def started_event(caller: Caller, first_words: str) -> NewEvent:
    """A conversation begins; its title is what was asked first."""
    return NewEvent(
        kind="conversation.started",
        actor_id=caller.id,
        actor_kind=caller.kind,
        conversation_id=new_id(),
        body={"title": _title(first_words)},
    )


def _title(asked: Any) -> str:
    """What was asked first, in a line."""
    words = asked if isinstance(asked, str) else asked[0]["content"]
    line = " ".join(str(words).split())
    return line if len(line) <= TITLE else f"{line[: TITLE - 1]}…"


async def own_conversation(gateway: Gateway, caller: Caller, conversation_id: str) -> Event:
    """How it began. Raises ApiError 404 where it is not there, or not the caller's: nobody learns which."""
    opened = await gateway.read(_opened, gateway.log, conversation_id)
    if opened is None or opened.actor_id != caller.id:
        raise ApiError(404, "there is no such conversation", param="conversation_id")
    return opened


# ---------------------------------------------------------------- questions to the log


def _opened(log: LogReader, conversation_id: str) -> Event | None:
    events = log.of_conversation(conversation_id, ("conversation.started", "conversation.deleted"))
    return None if len(events) != 1 else events[0]


def _list(log: LogReader, account_id: str) -> list[dict[str, Any]]:
    started = event.alias("started")
    gone = select(event.c.conversation_id).where(
        event.c.kind == "conversation.deleted", event.c.conversation_id == started.c.conversation_id
    )
    newest = select(func.max(event.c.ts)).where(event.c.conversation_id == started.c.conversation_id).scalar_subquery()
    query = (
        select(started.c.conversation_id, started.c.body, newest.label("at"))
        .where(started.c.kind == "conversation.started", started.c.actor_id == account_id, ~gone.exists())
        .order_by(started.c.seq.desc())
        .limit(MOST)
    )
    with reading(log.reader) as connection:
        rows = connection.execute(query).all()
        nameless = [row.conversation_id for row in rows if not row.body.get("title")]
        asked = {
            row.conversation_id: row.body["prompt"]
            for row in connection.execute(
                select(event.c.conversation_id, event.c.body)
                .where(event.c.kind == "completion.started", event.c.conversation_id.in_(nameless))
                .order_by(event.c.seq.desc())
            )
        }
    items = [
        {
            "id": row.conversation_id,
            "title": row.body.get("title") or _title(asked.get(row.conversation_id, "")),
            "updated_at": iso(row.at),
        }
        for row in rows
    ]
    return sorted(items, key=lambda item: str(item["updated_at"]), reverse=True)


def _turns(gateway: Gateway, conversation_id: str, account_id: str) -> list[dict[str, Any]]:
    """The latest question's conversation, then every answer to it; an answer that was asked for again comes twice."""
    log = gateway.log
    events = log.of_conversation(conversation_id, ("completion.started", "completion.finished"))
    finished: dict[str, list[Event]] = {}
    for each in events:
        if each.kind == "completion.finished":
            finished.setdefault(str(each.target_id), []).append(each)
    judged = _feedback(gateway, conversation_id, account_id)
    turns: list[dict[str, Any]] = []
    for begun in (each for each in events if each.kind == "completion.started"):
        prompt = begun.body["prompt"]
        said = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        for at, message in enumerate(said):
            known = turns[at] if at < len(turns) else None
            if known is None or (known["role"], known["content"]) != (message["role"], message["content"]):
                del turns[at:]
                turns.append({"id": f"{begun.id}-{at}", **message})
        del turns[len(said) :]
        for end in finished.get(str(begun.target_id), []):
            shown = completion_view(log, begun, end, [f for f in judged if f["completion_id"] == begun.target_id])
            turns.append({"id": end.id, "role": "assistant", "content": end.body["text"], "completion": shown})
    return turns


def completion_view(log: LogReader, begun: Event, end: Event, judged: list[dict[str, Any]]) -> dict[str, Any]:
    """An answer as the page shows it: text, tokens with places and rewards, what was said of it."""
    sampled = log.sampled(end.seq)
    text, rewards = end.body["text"], end.body.get("token_rewards") or []
    tokens = []
    if sampled is not None:
        starts = [0, *sampled.ends_T.tolist()]
        for at, (start, stop) in enumerate(zip(starts, sampled.ends_T.tolist(), strict=False)):
            tokens.append(
                {
                    "text": text[start:stop],
                    "start": start,
                    "end": stop,
                    "logprob": round(float(sampled.logprobs_T[at]), 4),
                    "reward": rewards[at] if at < len(rewards) else None,
                    "version": f"v{int(sampled.weight_versions_T[at])}",
                }
            )
    return {
        "id": begun.target_id,
        "choice": end.body["choice"],
        "text": text,
        "tokens": tokens,
        "finish_reason": end.body["finish_reason"],
        "weight_version": tokens[-1]["version"] if tokens else None,
        "reward_version": end.body.get("reward_version"),
        "created_at": iso(begun.ts),
        "feedback": judged,
    }


def _choices(log: LogReader, completion_id: str, account_id: str) -> list[dict[str, Any]]:
    events = log.about(completion_id, ("completion.started", "completion.finished"))
    begun = next((each for each in events if each.kind == "completion.started"), None)
    if begun is None or begun.actor_id != account_id:
        return []
    return [completion_view(log, begun, end, []) for end in events if end.kind == "completion.finished"]


def _feedback(gateway: Gateway, conversation_id: str, account_id: str) -> list[dict[str, Any]]:
    current = feedback_current.c
    query = (
        select(event.c.body, event.c.id, event.c.seq, event.c.ts, current.ready_seq, feedback_target.c.completion_id)
        .join(feedback_current, feedback_current.c.id == event.c.id)
        .join(feedback_target, feedback_target.c.feedback_id == event.c.id)
        .where(event.c.actor_id == account_id, feedback_target.c.completion_id.in_(_completions_of(conversation_id)))
        .order_by(event.c.seq)
    )
    with reading(gateway.log.reader) as connection:
        rows = connection.execute(query).all()
    return [
        {
            **row.body,
            **gateway.progress_of(row.ready_seq, row.ts),
            "id": row.id,
            "seq": row.seq,
            "created_at": iso(row.ts),
            "completion_id": row.completion_id,
        }
        for row in rows
    ]


def _completions_of(conversation_id: str) -> Any:
    return select(event.c.target_id).where(
        event.c.conversation_id == conversation_id, event.c.kind == "completion.started"
    )
