"""Everything that was said: search it, take it out, bring it in, erase a person's share of it."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Text, and_, or_, select, type_coerce
from starlette.responses import JSONResponse

from rewardloop.feedback.log.database import reading
from rewardloop.feedback.log.erasing import erase_subject
from rewardloop.feedback.log.event_log import EVENT_COLUMNS, LogReader, as_event
from rewardloop.feedback.log.events import Event
from rewardloop.feedback.log.schema import event, feedback_current, feedback_target
from rewardloop.feedback.log.settled import load_completions
from rewardloop.serve.edge.errors import ApiError
from rewardloop.serve.edge.times import iso
from rewardloop.serve.gateway import Gateway, TheCaller, TheGateway
from rewardloop.serve.work.prompts_of import as_json

router = APIRouter(tags=["page"])

SUMMARY: Final = 120  # characters
_LIKE: Final = str.maketrans({"\\": "\\\\", "%": "\\%", "_": "\\_"})


class Person(BaseModel):
    """Whose data shall go."""

    model_config = ConfigDict(extra="forbid")
    annotator_id: Annotated[str, Field(min_length=1, max_length=200)]


@router.get("/api/data")
async def search(
    gateway: TheGateway,
    kind: Annotated[str | None, Query(max_length=64)] = None,
    annotator: Annotated[str | None, Query(max_length=200)] = None,
    q: Annotated[str | None, Query(max_length=200)] = None,
    after: Annotated[int | None, Query(ge=0, lt=2**63, description="the `next` of the page before")] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> JSONResponse:
    """Judgments, the newest first, with what they are about."""
    found = await gateway.read(_search, gateway, kind, annotator, q, after, limit)
    following = found[-1]["seq"] if len(found) == limit else None
    return JSONResponse({"items": [_named(gateway, each) for each in found], "next": following})


@router.post("/api/erase")
async def erase(given: Person, gateway: TheGateway, caller: TheCaller) -> JSONResponse:
    """Erase a person: their words, their answers, what was said about those; from exports and copies, too."""
    if given.annotator_id == caller.id:
        raise ApiError(
            409, "an owner cannot erase themselves; make somebody else an owner, who can", param="annotator_id"
        )
    if await gateway.read(_unknown, gateway.log, given.annotator_id):
        raise ApiError(404, "nothing is known of this person", param="annotator_id")
    erased = await gateway.read(erase_subject, gateway.log, given.annotator_id, caller.id, caller.kind)
    gateway.forget(given.annotator_id)
    counted = {"events": erased.events, "completions": erased.completions, "exports": len(erased.files)}
    return JSONResponse(counted)


def _unknown(log: LogReader, subject_id: str) -> bool:
    known = select(event.c.seq).where(or_(event.c.actor_id == subject_id, event.c.subject_id == subject_id)).limit(1)
    with reading(log.reader) as connection:
        return connection.scalar(known) is None


def _search(
    gateway: Gateway, kind: str | None, annotator: str | None, words: str | None, before: int | None, limit: int
) -> list[dict[str, Any]]:
    conditions = [event.c.kind == "feedback.created"]
    if kind is not None:
        conditions.append(type_coerce(event.c.body, Text).like(f'%"kind":"{kind.translate(_LIKE)}"%', escape="\\"))
    if annotator is not None:
        conditions.append(
            or_(event.c.subject_id == annotator, and_(event.c.subject_id.is_(None), event.c.actor_id == annotator))
        )
    if words:
        conditions.append(_mentions(words))
    if before is not None:
        conditions.append(event.c.seq < before)
    query = select(*EVENT_COLUMNS).where(*conditions).order_by(event.c.seq.desc()).limit(limit)
    with reading(gateway.log.reader) as connection:
        events = [as_event(row) for row in connection.execute(query)]
        ids = [each.id for each in events]
        current = select(feedback_current.c.id, feedback_current.c.ready_seq).where(feedback_current.c.id.in_(ids))
        standing = {row.id: row.ready_seq for row in connection.execute(current)}
        targets = connection.execute(
            select(feedback_target).where(feedback_target.c.feedback_id.in_(ids)).order_by(feedback_target.c.place)
        ).all()
        choices = [(row.completion_id, row.choice) for row in targets if row.completion_id is not None]
        completions = load_completions(connection, choices)
    about: dict[str, list[Any]] = {}
    for row in targets:
        if (stored := completions.get((row.completion_id, row.choice))) is not None:
            about.setdefault(row.feedback_id, []).append(stored)
    return [
        _shown(each, about.get(each.id, []))
        | (gateway.progress_of(standing[each.id], each.ts) if each.id in standing else {"status": "retracted"})
        for each in events
    ]


def _mentions(words: str) -> Any:
    """In the judgment itself, or in an answer that it is about."""
    pattern = f"%{words.translate(_LIKE)}%"
    spoken = event.alias("spoken")
    about = (
        select(feedback_target.c.feedback_id)
        .join(spoken, spoken.c.target_id == feedback_target.c.completion_id)
        .where(
            spoken.c.kind.in_(("completion.started", "completion.finished")),
            type_coerce(spoken.c.body, Text).like(pattern, escape="\\"),
        )
    )
    return or_(type_coerce(event.c.body, Text).like(pattern, escape="\\"), event.c.id.in_(about))


def _shown(each: Event, about: list[Any]) -> dict[str, Any]:
    return {
        "seq": each.seq,
        "id": each.id,
        "at": iso(each.ts),
        "kind": each.body["kind"],
        "annotator": each.subject_id or each.actor_id,
        "summary": _summary(each.body),
        "prompt": as_json(about[0].completion.prompt) if about else None,
        "completion": about[0].completion.text if about else None,
        "completions": [stored.completion.text for stored in about],
        "body": each.body,
    }


def _summary(body: dict[str, Any]) -> str:
    match body["kind"]:
        case "rating":
            scale = body.get("scale") or {"low": 1, "high": 5}
            text = f"{body['value']} / {scale['high']}"
        case "preference":
            text = str(body["choice"])
        case "ranking":
            text = " ".join(map(str, body["ranks"]))
        case "live":
            text = f"{body['value']:+d} @ {body.get('token_index', body.get('offset'))}"  # one of them is there
        case other:
            field = {"edit": "corrected", "comment": "text", "dialogue": "reply", "span": "category", "flag": "reason"}
            text = str(body[field[other]])
    return text if len(text) <= SUMMARY else f"{text[: SUMMARY - 1]}…"


def _named(gateway: Gateway, shown: dict[str, Any]) -> dict[str, Any]:
    account = gateway.accounts.accounts.get(shown["annotator"])
    name = account.name if account else shown["annotator"].removeprefix("external:")
    return {**shown, "annotator": {"id": shown["annotator"], "name": name}}
