"""The queue of the page: get a question, answer or skip it, take the answer back; managers say what is asked."""

from __future__ import annotations

import time
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from rewardloop.feedback.log.events import NewEvent, new_id
from rewardloop.feedback.log.submissions import feedback_event, parse_submission
from rewardloop.serve.edge.access import Caller
from rewardloop.serve.edge.errors import ApiError
from rewardloop.serve.edge.times import iso
from rewardloop.serve.gateway import Gateway, TheCaller, TheGateway, account_id_of
from rewardloop.serve.routes.feedback import REPLAYED, IdempotencyKey, accepted
from rewardloop.serve.state.queue import Assignment, Task
from rewardloop.serve.work.kitchen import TheKitchen
from rewardloop.serve.work.prompts_of import TRAFFIC, gold_of_town, prompts_of_town, prompts_of_traffic

router = APIRouter(tags=["page"])

LEASE_S: Final = 600.0
MOST_PROMPTS: Final = 1000

Text = Annotated[str, Field(min_length=1, max_length=20_000)]
Share = Annotated[float, Field(ge=0, le=0.5)]


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Turn(_Closed):
    role: Literal["system", "user", "assistant"]
    content: Text


Prompt = Text | Annotated[list[Turn], Field(min_length=1, max_length=64)]


class Gold(_Closed):
    """Two answers of which one is known to be better. Where answers are rated, one of them is shown, and to be
    corrected the worse one."""

    prompt: Prompt
    better: Text
    worse: Text


class NewTask(_Closed):
    """What is asked. Prompts are given, or taken from the town, or from what people have asked."""

    task: Literal["compare", "rate", "edit"] = "compare"
    prompts: Annotated[list[Prompt], Field(max_length=MOST_PROMPTS)] = []
    source: Literal["given", "world", "traffic"] = "given"
    count: Annotated[int, Field(ge=1, le=MOST_PROMPTS)] = 50  # taken from the source
    overlap: Annotated[int, Field(ge=1, le=7)] = 2
    criterion: Annotated[str, Field(min_length=1, max_length=64)] = "overall"
    gold: Annotated[list[Gold], Field(max_length=200)] = []
    gold_share: Share = 0.1
    repeat_share: Share = 0.075


class Given(_Closed):
    """An answer to a question of the queue; what it is about is known."""

    choice: Literal["first", "second", "tie", "both_bad"] | None = None
    value: int | None = None
    corrected: Annotated[str, Field(max_length=100_000)] | None = None
    comment: Annotated[str, Field(max_length=10_000)] | None = None


class Skip(_Closed):
    reason: Annotated[str, Field(min_length=1, max_length=1000)]


@router.get("/api/queue/progress")
async def progress(gateway: TheGateway, caller: TheCaller) -> JSONResponse:
    """How much is done, by me and by all."""
    return JSONResponse({**gateway.queue.progress(caller.id), "agreement": gateway.people.headline_alpha})


@router.post("/api/queue/next", responses={204: {"description": "There is nothing left to judge"}})
async def following(http: Request, gateway: TheGateway, caller: TheCaller) -> Response:
    """The next question for me, mine for ten minutes; 204 when there is none."""
    annotator = account_id_of(http)
    async with gateway.handing_out:
        planned = gateway.queue.plan(annotator, gateway.people.informing(annotator))
        if planned is None:
            return Response(status_code=204)
        task, lease, held = planned
        if held is None:
            body = {
                "task_id": task.id,
                "annotator_id": annotator,
                "lease_until": time.time() + LEASE_S,
                "item": lease.item,
                "purpose": lease.purpose,
                "swapped": lease.swapped,
            }
            (stored,) = await gateway.append(_event("queue.assigned", caller, None, body))
            held = gateway.queue.assignments[stored.id]
    return JSONResponse(_shown(gateway, task, held))


@router.post("/api/queue/undo")
async def undo(http: Request, gateway: TheGateway, caller: TheCaller) -> JSONResponse:
    """Take back what I answered last, and get the question again."""
    assignment = gateway.queue.last_done(account_id_of(http))
    task = None if assignment is None else gateway.queue.task(assignment.task_id)
    if assignment is None or task is None:
        raise ApiError(409, "there is nothing to take back", code="nothing_to_undo")
    again = _event("queue.undone", caller, assignment.id, {"lease_until": time.time() + LEASE_S})
    taken_back = [
        NewEvent(
            kind="feedback.retracted",
            actor_id=caller.id,
            actor_kind=caller.kind,
            target_id=assignment.feedback_id,
            idem_key=f"retract {assignment.feedback_id}",
        )
    ] * (assignment.feedback_id is not None)
    await gateway.append(*taken_back, again)
    return JSONResponse(_shown(gateway, task, gateway.queue.assignments[assignment.id]))


@router.post("/api/queue/{assignment_id}/answer", status_code=201, responses=REPLAYED)
async def answer(
    assignment_id: str,
    given: Given,
    http: Request,
    gateway: TheGateway,
    caller: TheCaller,
    idempotency_key: IdempotencyKey = None,
) -> JSONResponse:
    """Answer a question that I hold, or held: a late answer counts as well."""
    assignment, task = _own(gateway, http, assignment_id)
    if assignment.feedback_id is not None and idempotency_key is None:
        raise ApiError(409, "this question was answered; take the answer back first", code="already_answered")
    submission = parse_submission(
        {**judgment_of_answer(task, given), **_about(task, assignment), "criterion": task.criterion}
    )
    key = idempotency_key or f"answer {assignment_id} {new_id()}"
    (stored,) = await gateway.append(feedback_event(submission, caller.id, caller.kind, idem_key=key))
    if assignment.feedback_id is None:
        await gateway.append(
            _event("queue.answered", caller, assignment_id, {"feedback_id": stored.id}, f"answered {stored.id}"),
            *_gold_event(caller, task, assignment, given),
        )
        gateway.telemetry.feedback.labels(submission.kind).inc()
        gateway.hub.tell_feedback(caller, stored)
    return JSONResponse(accepted(stored), 201 if stored.outcome == "stored" else 200)


@router.post("/api/queue/{assignment_id}/skip", status_code=204)
async def skip(assignment_id: str, given: Skip, http: Request, gateway: TheGateway, caller: TheCaller) -> Response:
    """I would rather not; somebody else gets it."""
    assignment, _ = _own(gateway, http, assignment_id)
    if assignment.feedback_id is not None:
        raise ApiError(409, "this question was answered; take the answer back first", code="already_answered")
    await gateway.append(_event("queue.skipped", caller, assignment_id, {"reason": given.reason}))
    return Response(status_code=204)


@router.get("/api/queue/tasks")
async def tasks(gateway: TheGateway) -> JSONResponse:
    """What is asked, and how far it has come."""
    return JSONResponse({"items": [_task(gateway, task) for task in gateway.queue.tasks]})


@router.post("/api/queue/tasks", status_code=201)
async def make_task(given: NewTask, gateway: TheGateway, kitchen: TheKitchen, caller: TheCaller) -> JSONResponse:
    """Ask something. The answers to be judged are made in the background; the queue fills as they come."""
    prompts = await _prompts(gateway, given)
    gold = [each.model_dump(mode="json") for each in given.gold]
    if given.source == "world" and given.gold_share and not gold:
        gold = gold_of_town(max(1, round(given.gold_share * len(prompts))))
    task_id = new_id()
    body = {
        "task": given.task,
        "prompts": prompts,
        "gold": gold,
        "overlap": given.overlap,
        "criterion": given.criterion,
        "gold_share": given.gold_share if gold else 0.0,
        "repeat_share": given.repeat_share,
    }
    await gateway.append(_event("queue.task_created", caller, task_id, body))
    task = gateway.queue.task(task_id)
    assert task is not None
    kitchen.prepare(task)
    return JSONResponse(_task(gateway, task), 201)


@router.delete("/api/queue/tasks/{task_id}", status_code=204)
async def remove_task(task_id: str, gateway: TheGateway, caller: TheCaller) -> Response:
    """Ask it no more. What was answered stays."""
    if gateway.queue.task(task_id) is None:
        raise ApiError(404, "there is no such task", param="task_id")
    await gateway.append(_event("queue.task_deleted", caller, task_id, {}))
    return Response(status_code=204)


# ---------------------------------------------------------------- helpers


async def _prompts(gateway: Gateway, given: NewTask) -> list[Any]:
    if given.source == "world":
        if not gateway.has_world:
            raise ApiError(400, "only the built-in model has a world; give prompts", param="source")
        return prompts_of_town(given.count)
    if given.source == TRAFFIC:
        found = await gateway.read(prompts_of_traffic, gateway.log, given.count)
    else:
        found = [each if isinstance(each, str) else [turn.model_dump() for turn in each] for each in given.prompts]
    if not found:
        raise ApiError(400, "there is nothing to ask; give prompts, or another source", param="prompts")
    return found


def _own(gateway: Gateway, http: Request, assignment_id: str) -> tuple[Assignment, Task]:
    assignment = gateway.queue.assignments.get(assignment_id)
    task = None if assignment is None else gateway.queue.task(assignment.task_id)
    if assignment is None or task is None or assignment.lease.annotator != account_id_of(http):
        raise ApiError(404, "there is no such question for you", param="assignment_id")
    return assignment, task


def judgment_of_answer(task: Task, given: Given) -> dict[str, Any]:
    """Raises ApiError where the answer is of another kind than the question."""
    wanted = {"compare": ("preference", "choice"), "rate": ("rating", "value"), "edit": ("edit", "corrected")}
    kind, name = wanted[task.kind]
    value = getattr(given, name)
    if value is None:
        raise ApiError(400, f"this question wants {name}", param=name)
    extra = {} if given.comment is None else {"metadata": {"comment": given.comment}}
    return {"kind": kind, name: value, **extra}


def _about(task: Task, assignment: Assignment) -> dict[str, Any]:
    completion_id = task.completion_id(assignment.place)
    if task.kind != "compare":
        return {"target": {"completion_id": completion_id}}
    order = (1, 0) if assignment.lease.swapped else (0, 1)
    return {"targets": [{"completion_id": completion_id, "choice": choice} for choice in order]}


def _gold_event(caller: Caller, task: Task, assignment: Assignment, given: Given) -> list[NewEvent]:
    if assignment.lease.purpose != "gold":
        return []
    said = {
        "expected": task.gold_expects(assignment.place, swapped=assignment.lease.swapped),
        "given": task.gold_says(assignment.place, given.model_dump()),
    }
    return [_event("annotator.gold", caller, caller.id, said)]


def _shown(gateway: Gateway, task: Task, assignment: Assignment) -> dict[str, Any]:
    """A question as the page shows it: nothing says whether it is gold, a repeat, or which side is which."""
    texts = gateway.queue.texts(assignment)
    counted = gateway.queue.progress(assignment.lease.annotator)["all"]
    choices = (1, 0) if assignment.lease.swapped else (0, 1)
    completion_id = task.completion_id(assignment.place)
    return {
        "assignment_id": assignment.id,
        "task": task.kind,
        "criterion": task.criterion,
        "guidelines": gateway.preferences.settings.guidelines,
        "lease_expires_at": iso(assignment.lease.expires_s),
        "prompt": task.prompt(assignment.place),
        "candidates": [
            {"completion_id": completion_id, "choice": choice, "text": text}
            for choice, text in zip(choices, texts, strict=False)
        ],
        "remaining": max(0, counted["total"] - counted["done"]),
    }


def _task(gateway: Gateway, task: Task) -> dict[str, Any]:
    return {
        "id": task.id,
        "task": task.kind,
        "criterion": task.criterion,
        "overlap": task.settings.overlap,
        "gold_share": task.settings.gold_share,
        "repeat_share": task.settings.repeat_share,
        "prompts": len(task.prompts),
        "gold": len(task.gold),
        "created_at": iso(task.created_at),
        "progress": gateway.queue.task_progress(task),
    }


def _event(
    kind: str, caller: Caller, target_id: str | None, body: dict[str, Any], idem_key: str | None = None
) -> NewEvent:
    return NewEvent(
        kind=kind, actor_id=caller.id, actor_kind=caller.kind, target_id=target_id, body=body, idem_key=idem_key
    )
