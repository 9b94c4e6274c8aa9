"""POST /v1/feedback and what belongs to it: judgments of every kind, by people, programs, and browsers with a token."""

from __future__ import annotations

import time
from typing import Annotated, Any, Final

from fastapi import APIRouter, Header, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import JSONResponse

from rewardloop.feedback.log.events import Appended, Event, NewEvent
from rewardloop.feedback.log.submissions import Submission, Target, feedback_event
from rewardloop.serve.edge.access import Caller
from rewardloop.serve.edge.errors import ApiError
from rewardloop.serve.edge.limits import FEEDBACK, FEEDBACK_TICKET
from rewardloop.serve.edge.times import iso
from rewardloop.serve.gateway import Gateway, TheCaller, TheGateway
from rewardloop.serve.state.preferences import Criterion
from rewardloop.serve.state.tickets import LONGEST_S

router = APIRouter(tags=["feedback"])

REPLAYED: Final[dict[int | str, dict[str, Any]]] = {200: {"description": "The first reply to this key, again"}}

IdempotencyKey = Annotated[str | None, Header(alias="Idempotency-Key", min_length=1, max_length=200)]
Judged = Annotated[Submission, Field(discriminator="kind")]


class Batch(BaseModel):
    """Up to a hundred judgments, all stored or none."""

    model_config = ConfigDict(extra="forbid")
    items: Annotated[list[Judged], Field(min_length=1, max_length=100)]


class TicketRequest(BaseModel):
    """What a browser without a key shall be able to say."""

    model_config = ConfigDict(extra="forbid")
    target: Target
    kinds: Annotated[list[str], Field(min_length=1, max_length=9)]
    expires_s: Annotated[int, Field(ge=1, le=LONGEST_S)] = 3600


@router.post("/v1/feedback", status_code=201, responses=REPLAYED)
async def give(
    given: Judged, gateway: TheGateway, caller: TheCaller, idempotency_key: IdempotencyKey = None
) -> JSONResponse:
    """Store one judgment. Answered after it is on the disk; the same key and body again gives the same answer."""
    return await store(gateway, caller, given, idempotency_key)


async def store(gateway: Gateway, caller: Caller, given: Submission, idempotency_key: str | None) -> JSONResponse:
    """The answer to one judgment of somebody who was let in. Raises ApiError, and what storing raises."""
    _check(gateway, caller, given)
    began = time.perf_counter()
    (stored,) = await gateway.append(_event(caller, given, idempotency_key))
    gateway.telemetry.commit_seconds.observe(time.perf_counter() - began)
    if stored.outcome == "stored":
        gateway.telemetry.feedback.labels(given.kind).inc()
        gateway.hub.tell_feedback(caller, stored)
    return JSONResponse(accepted(stored), 201 if stored.outcome == "stored" else 200)


@router.post("/v1/feedback/batch", status_code=201, responses=REPLAYED)
async def give_batch(
    given: Batch, gateway: TheGateway, caller: TheCaller, idempotency_key: IdempotencyKey = None
) -> JSONResponse:
    """Store several judgments, all or none."""
    for item in given.items:
        _check(gateway, caller, item)
    keys = [None if idempotency_key is None else f"{idempotency_key}/{at}" for at in range(len(given.items))]
    stored = await gateway.append(*(_event(caller, item, key) for item, key in zip(given.items, keys, strict=True)))
    for item, each in zip(given.items, stored, strict=True):
        if each.outcome == "stored":
            gateway.telemetry.feedback.labels(item.kind).inc()
    fresh = any(each.outcome == "stored" for each in stored)
    return JSONResponse({"items": [accepted(each) for each in stored]}, 201 if fresh else 200)


@router.get("/v1/feedback")
async def read_page(
    gateway: TheGateway,
    after: Annotated[int, Query(ge=0, lt=2**63)] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> JSONResponse:
    """Judgments and retractions after a sequence number, in order."""
    kinds = ("feedback.created", "feedback.retracted")
    events = await gateway.read(gateway.log.read, after, kinds, limit)
    following = events[-1].seq if len(events) == limit else None
    return JSONResponse({"items": [_shown(event) for event in events], "next": following})


@router.get("/v1/feedback/{feedback_id}")
async def read_one(feedback_id: str, gateway: TheGateway, caller: TheCaller) -> JSONResponse:
    """One judgment: one's own, or any for those who may read all."""
    event = await _own(gateway, caller, feedback_id, reading=True)
    return JSONResponse(_shown(event))


@router.delete("/v1/feedback/{feedback_id}")
async def retract(feedback_id: str, gateway: TheGateway, caller: TheCaller) -> JSONResponse:
    """Take a judgment back. It stays in the log, and counts no longer."""
    event = await _own(gateway, caller, feedback_id, reading=False)
    gone = NewEvent(
        kind="feedback.retracted",
        actor_id=caller.id,
        actor_kind=caller.kind,
        target_id=event.id,
        conversation_id=event.conversation_id,
        idem_key=f"retract {event.id}",
    )
    (stored,) = await gateway.append(gone)
    return JSONResponse({**accepted(stored), "status": "retracted"})


@router.post("/v1/feedback_tokens", status_code=201)
async def issue_token(given: TicketRequest, gateway: TheGateway, caller: TheCaller) -> JSONResponse:
    """A token with which a browser may judge one answer, for a while."""
    expires_at = time.time() + given.expires_s
    target = given.target.model_dump(mode="json", exclude_none=True)
    token = gateway.tickets.issue(caller.id, target, given.kinds, expires_at)
    return JSONResponse({"token": token, "expires_at": iso(expires_at)}, 201)


@router.get("/v1/criteria")
async def criteria(gateway: TheGateway) -> JSONResponse:
    """What answers are judged by."""
    return JSONResponse({"items": [each.model_dump(mode="json") for each in gateway.preferences.settings.criteria]})


@router.post("/v1/criteria", status_code=201)
async def declare(given: Criterion, gateway: TheGateway, caller: TheCaller) -> JSONResponse:
    """Declare a criterion and its scale, or change one."""
    change = gateway.preferences.with_criterion(given)
    await gateway.append(
        NewEvent(kind="settings.changed", actor_id=caller.id, actor_kind=caller.kind, body=change),
    )
    return JSONResponse(given.model_dump(mode="json"), 201)


# ---------------------------------------------------------------- helpers


def _check(gateway: Gateway, caller: Caller, given: Submission) -> None:
    """Raises ApiError where the caller may not say this, or not so often."""
    if caller.ticket is not None:
        _check_ticket(gateway, caller, given)
    else:
        gateway.limits.take(FEEDBACK, caller.id)
    if given.annotator is not None and caller.kind != "key":
        raise ApiError(403, "only an API key may speak for somebody else", param="annotator")


def _check_ticket(gateway: Gateway, caller: Caller, given: Submission) -> None:
    assert caller.ticket is not None
    gateway.limits.take(FEEDBACK_TICKET, caller.ticket["n"])
    targets = [target.model_dump(mode="json", exclude_none=True, exclude={"tokens"}) for target in given.about]
    if given.kind not in caller.ticket["kinds"] or any(target != caller.ticket["target"] for target in targets):
        raise ApiError(403, "this token is for another answer, or another kind of feedback", code="wrong_token")


def _event(caller: Caller, given: Submission, idempotency_key: str | None) -> NewEvent:
    return feedback_event(given, caller.id, caller.kind, idem_key=idempotency_key)


def accepted(stored: Appended) -> dict[str, Any]:
    """What is said of a judgment that is on the disk."""
    return {"id": stored.id, "seq": stored.seq, "status": "waiting" if stored.waiting else "accepted"}


async def _own(gateway: Gateway, caller: Caller, feedback_id: str, *, reading: bool) -> Event:
    """The judgment, if it is the caller's to see (or to take back). Others do not learn whether it is there."""
    event = await gateway.read(gateway.log.event, feedback_id)
    may = caller.manages or (reading and caller.kind == "key" and "read" in caller.scopes)
    if event is None or event.kind != "feedback.created" or not (may or event.actor_id == caller.id):
        raise ApiError(404, "there is no such feedback", param="feedback_id")
    return event


def _shown(event: Event) -> dict[str, Any]:
    return {
        "id": event.id,
        "seq": event.seq,
        "at": iso(event.ts),
        "type": event.kind,
        "annotator": event.subject_id or event.actor_id,
        "target_id": event.target_id,
        "body": event.body,
    }
