"""Disagreements of the queue: managers see who said what, side by side, and decide.

A verdict is a judgment of whoever decides, and counts like any other; those that it overrules stay, for they say who
can be trusted. Deciding again takes the verdict before back.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.responses import JSONResponse

from rewardloop.feedback.log.events import NewEvent, new_id
from rewardloop.feedback.log.submissions import feedback_event, parse_submission
from rewardloop.serve.edge.access import Caller
from rewardloop.serve.edge.errors import ApiError
from rewardloop.serve.edge.times import iso
from rewardloop.serve.gateway import Gateway, TheCaller, TheGateway
from rewardloop.serve.routes.feedback import REPLAYED, IdempotencyKey, accepted
from rewardloop.serve.routes.queue import Given, judgment_of_answer
from rewardloop.serve.state.disagreements import Disagreement, Said, find_disagreements
from rewardloop.serve.state.queue import Met

router = APIRouter(tags=["page"])


@router.get("/api/queue/disagreements")
async def disagreements(
    gateway: TheGateway,
    decided: Annotated[bool, Query(description="those with a verdict, in place of those without")] = False,
    limit: Annotated[int, Query(ge=1, le=200)] = 100,
) -> JSONResponse:
    """Items of the queue on which people disagree, with what each of them said, and how many there are."""
    found = await _find(gateway, gateway.queue.met())
    chosen = [each for each in found if (each.verdict is not None) == decided]
    done = sum(each.verdict is not None for each in found)
    items = [_shown(gateway, each) for each in chosen[:limit]]
    return JSONResponse({"items": items, "open": len(found) - done, "decided": done})


@router.post("/api/queue/disagreements/{item_id}/verdict", status_code=201, responses=REPLAYED)
async def decide(
    item_id: str, given: Given, gateway: TheGateway, caller: TheCaller, idempotency_key: IdempotencyKey = None
) -> JSONResponse:
    """Decide where people disagree: an answer as to the question itself, `first` being the first of its candidates."""
    found = await _find(gateway, [item for item in gateway.queue.met() if item.id == item_id])
    if not found:
        raise ApiError(404, "people do not disagree about such an item", param="item_id")
    item = found[0].item
    values = {**judgment_of_answer(item.task, given), **_about(item), "criterion": item.task.criterion}
    values["metadata"] = {**values.get("metadata", {}), "verdict": True}
    key = idempotency_key or f"verdict {item_id} {new_id()}"
    submission = parse_submission(values)
    (stored,) = await gateway.append(feedback_event(submission, caller.id, caller.kind, idem_key=key))
    if stored.id not in item.verdicts:
        await gateway.append(*_taken_back(caller, item), _decided(caller, item, stored.id))
    if stored.outcome == "stored":
        gateway.telemetry.feedback.labels(submission.kind).inc()
        gateway.hub.tell_feedback(caller, stored)
    return JSONResponse(accepted(stored), 201 if stored.outcome == "stored" else 200)


async def _find(gateway: Gateway, met: list[Met]) -> list[Disagreement]:
    return await gateway.read(find_disagreements, gateway.log, met, frozenset(gateway.people.excluded))


def _about(item: Met) -> dict[str, Any]:
    targets = [{"completion_id": item.id, "choice": choice} for choice in range(len(item.texts))]
    return {"targets": targets} if len(targets) > 1 else {"target": targets[0]}


def _taken_back(caller: Caller, item: Met) -> list[NewEvent]:
    if item.verdict is None:
        return []
    key = f"retract {item.verdict}"
    kind = "feedback.retracted"
    return [NewEvent(kind=kind, actor_id=caller.id, actor_kind=caller.kind, target_id=item.verdict, idem_key=key)]


def _decided(caller: Caller, item: Met, feedback_id: str) -> NewEvent:
    return NewEvent(
        kind="queue.decided",
        actor_id=caller.id,
        actor_kind=caller.kind,
        target_id=item.id,
        body={"feedback_id": feedback_id},
        idem_key=f"decided {feedback_id}",
    )


def _shown(gateway: Gateway, found: Disagreement) -> dict[str, Any]:
    item = found.item
    return {
        "id": item.id,
        "task": item.task.kind,
        "criterion": item.task.criterion,
        "prompt": item.task.prompt(item.place),
        "candidates": [
            {"completion_id": item.id, "choice": choice, "text": text} for choice, text in enumerate(item.texts)
        ],
        "judgments": [_said(gateway, each) for each in found.said],
        "verdict": None if found.verdict is None else _said(gateway, found.verdict),
    }


def _said(gateway: Gateway, said: Said) -> dict[str, Any]:
    account = gateway.accounts.accounts.get(said.annotator)
    annotator = {"id": said.annotator, "name": account.name if account else said.annotator}
    comment = {} if said.comment is None else {"comment": said.comment}
    return {"annotator": annotator, "at": iso(said.ts), said.field: said.value, **comment}
