"""What the learner reports, and what people and operators decide about versions of the policy."""

from __future__ import annotations

import time
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Header, Query
from pydantic import BaseModel, ConfigDict, Field, model_validator
from starlette.responses import JSONResponse

from rewardloop.serve.edge.times import iso
from rewardloop.serve.gateway import Gateway, TheCaller, TheGateway
from rewardloop.serve.state.policy import GIVEN, MOST_LISTED, PAUSED, RESUMED, described, policy_event
from rewardloop.serve.work.activating import activate, roll_back

router = APIRouter(tags=["policy"])

Number = Annotated[int, Field(ge=0, lt=2**53)]
Reason = Annotated[str, Field(max_length=2000)]
Metrics = Annotated[dict[str, float | None], Field(max_length=500)]
IdempotencyKey = Annotated[str | None, Header(alias="Idempotency-Key", min_length=1, max_length=200)]
REPLAYED: Final[dict[int | str, dict[str, Any]]] = {200: {"description": "The first reply to this key, again"}}


class _Body(BaseModel):
    """What else a learner says of a version is kept as it is."""

    model_config = ConfigDict(extra="allow")


class PublishedBody(_Body):
    version: Number
    parent: Number | None = None
    digest: Annotated[str, Field(max_length=200)] | None = None
    last_seq: Number | None = None
    feedback: Number | None = None
    reward_version: Annotated[str, Field(max_length=200)] | None = None
    metrics: Metrics = Field(default_factory=dict)

    @model_validator(mode="after")
    def _says_what_it_learned(self) -> PublishedBody:
        """Only the model as it was given has learned nothing."""
        if self.last_seq is None and self.version != GIVEN:
            raise ValueError("last_seq is missing: up to where in the log has this version learned?")
        return self


class GatedBody(_Body):
    version: Number
    passed: bool
    reasons: Annotated[list[Reason], Field(max_length=100)] = Field(default_factory=list)
    metrics: Metrics = Field(default_factory=dict)


class AlarmBody(_Body):
    name: Annotated[str, Field(min_length=1, max_length=100)]
    text: Reason
    version: Number | None = None
    metrics: Metrics = Field(default_factory=dict)


class RestBody(_Body):
    reason: Reason = ""


class _Report(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Published(_Report):
    """Weights are in the registry."""

    kind: Literal["policy.published"]
    body: PublishedBody


class Gated(_Report):
    """A gate let weights pass, or held them."""

    kind: Literal["policy.gated"]
    body: GatedBody


class Alarmed(_Report):
    """Something needs eyes."""

    kind: Literal["policy.alarm"]
    body: AlarmBody


class Rest(_Report):
    """The learner rests, or goes on."""

    kind: Literal["policy.paused", "policy.resumed"]
    body: RestBody


class Progress(BaseModel):
    """What the learner is doing now."""

    model_config = ConfigDict(extra="ignore")
    phase: Annotated[str, Field(min_length=1, max_length=64)]
    iteration: Number | None = None
    of: Number | None = None  # iterations before the next version
    version: Number | None = None  # the newest one
    judgments: Number | None = None  # that it learns from
    last_seq: Number | None = None  # place in the log that it has come to
    because: Reason | None = None  # what it waits for


class Choice(BaseModel):
    model_config = ConfigDict(extra="forbid")
    version: Number
    reason: Reason = ""


class Wish(BaseModel):
    model_config = ConfigDict(extra="forbid")
    reason: Reason = ""
    leaving: Number | None = None  # the version to go back from; where another one is served, nothing is to be done


class Learning(BaseModel):
    model_config = ConfigDict(extra="forbid")
    paused: bool
    reason: Reason = ""


@router.get("/api/policy")
async def show(
    gateway: TheGateway,
    limit: Annotated[int, Query(ge=1, le=MOST_LISTED)] = MOST_LISTED,
    older_than: Annotated[int | None, Query(ge=0, lt=2**53)] = None,
) -> JSONResponse:
    """Versions, the one that is served, what the learner is doing.

    All versions that are kept, and the newest `limit` of those that are gone; `next`, as `older_than`, brings more.
    """
    return await _state(gateway, limit, older_than)


@router.post("/api/policy/reports", status_code=201, responses=REPLAYED)
async def report(
    given: Annotated[Published | Gated | Alarmed | Rest, Field(discriminator="kind")],
    gateway: TheGateway,
    caller: TheCaller,
    idempotency_key: IdempotencyKey = None,
) -> JSONResponse:
    """Store what the learner reports; answered after it is on the disk."""
    body = given.body.model_dump(mode="json", exclude_none=True)
    (stored,) = await gateway.append(policy_event(given.kind, caller, body, idempotency_key))
    return JSONResponse({"id": stored.id, "seq": stored.seq}, 201 if stored.outcome == "stored" else 200)


@router.put("/api/policy/progress")
async def progress(given: Progress, gateway: TheGateway) -> JSONResponse:
    """What the learner is doing now; told to open pages, not stored."""
    said = {**given.model_dump(mode="json", exclude_none=True), "at": iso(time.time())}
    gateway.policy.progress = said
    gateway.hub.tell_all("learner", **said)
    return JSONResponse({})


@router.post("/api/policy/activate")
async def choose(given: Choice, gateway: TheGateway, caller: TheCaller) -> JSONResponse:
    """Serve this version: the engine first, then the record of it."""
    await activate(gateway, caller, given.version, given.reason)
    return await _state(gateway)


@router.post("/api/policy/rollback")
async def go_back(given: Wish, gateway: TheGateway, caller: TheCaller) -> JSONResponse:
    """Serve the version that was active before. Asked twice to leave the same version, it is left once."""
    if given.leaving is not None and given.leaving != gateway.policy.serving:
        return await _state(gateway)
    await roll_back(gateway, caller, given.reason)
    return await _state(gateway)


@router.post("/api/policy/learning")
async def rest(given: Learning, gateway: TheGateway, caller: TheCaller) -> JSONResponse:
    """Let learning rest, or go on."""
    if given.paused != gateway.policy.paused:
        await gateway.append(policy_event(PAUSED if given.paused else RESUMED, caller, {"reason": given.reason}))
    return await _state(gateway)


async def _state(gateway: Gateway, most: int = MOST_LISTED, older_than: int | None = None) -> JSONResponse:
    return JSONResponse(await gateway.read(described, gateway.policy, gateway.weights, most, older_than))
