"""What the learner reports, and what people and operators decide about versions of the policy."""

from __future__ import annotations

import time
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Header
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import JSONResponse

from rewardloop.loop.manifests import list_versions
from rewardloop.serve.account_routes import iso
from rewardloop.serve.activating import activate, roll_back
from rewardloop.serve.gateway import Gateway, TheCaller, TheGateway
from rewardloop.serve.policy import GIVEN, PAUSED, RESUMED, Alarm, Version, policy_event

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
    last_seq: Number
    feedback: Number = 0
    reward_version: Annotated[str, Field(max_length=200)] | None = None
    metrics: Metrics = Field(default_factory=dict)


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
    iterations: Number | None = None
    version: Number | None = None  # the one in the making
    feedback: Number | None = None  # judgments that it is learned from
    text: Reason | None = None
    metrics: Metrics = Field(default_factory=dict)


class Choice(BaseModel):
    model_config = ConfigDict(extra="forbid")
    version: Number
    reason: Reason = ""


class Wish(BaseModel):
    model_config = ConfigDict(extra="forbid")
    reason: Reason = ""


class Learning(BaseModel):
    model_config = ConfigDict(extra="forbid")
    paused: bool
    reason: Reason = ""


@router.get("/api/policy")
async def show(gateway: TheGateway) -> JSONResponse:
    """All versions, the one that is served, what the learner is doing."""
    return JSONResponse(await described(gateway))


@router.post("/api/policy/reports", status_code=201, responses=REPLAYED)
async def report(
    given: Annotated[Published | Gated | Alarmed | Rest, Field(discriminator="kind")],
    gateway: TheGateway,
    caller: TheCaller,
    idempotency_key: IdempotencyKey = None,
) -> JSONResponse:
    """Store what the learner reports; answered after it is on the disk."""
    body = given.body.model_dump(mode="json")
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
    return JSONResponse(await described(gateway))


@router.post("/api/policy/rollback")
async def go_back(given: Wish, gateway: TheGateway, caller: TheCaller) -> JSONResponse:
    """Serve the version that was active before."""
    await roll_back(gateway, caller, given.reason)
    return JSONResponse(await described(gateway))


@router.post("/api/policy/learning")
async def rest(given: Learning, gateway: TheGateway, caller: TheCaller) -> JSONResponse:
    """Let learning rest, or go on."""
    if given.paused != gateway.policy.paused:
        await gateway.append(policy_event(PAUSED if given.paused else RESUMED, caller, {"reason": given.reason}))
    return JSONResponse(await described(gateway))


async def described(gateway: Gateway) -> dict[str, Any]:
    """The state of the policy as everybody may see it."""
    policy = gateway.policy
    kept = {manifest.version for manifest in await gateway.read(list_versions, gateway.weights)} | {GIVEN}
    versions = {GIVEN: Version(GIVEN), **policy.versions}
    return {
        "active": policy.serving,
        "before": policy.earlier(kept),
        "paused": policy.paused,
        "pause_reason": policy.pause_reason,
        "learned": policy.learned,
        "live": policy.live,
        "trouble": policy.trouble,
        "versions": [_shown(gateway, versions[number], kept) for number in sorted(versions, reverse=True)],
        "progress": policy.progress,
        "alarms": [shown_alarm(alarm) for alarm in reversed(policy.alarms)],
    }


def _shown(gateway: Gateway, version: Version, kept: set[int]) -> dict[str, Any]:
    return {
        "version": version.version,
        "parent": version.parent,
        "digest": version.digest,
        "last_seq": version.last_seq,
        "feedback": version.feedback,
        "reward_version": version.reward_version,
        "metrics": version.metrics,
        "published_at": version.published_at and iso(version.published_at),
        "activated_at": version.activated_at and iso(version.activated_at),
        "passed": version.passed,
        "reasons": version.reasons,
        "active": version.version == gateway.policy.serving,
        "kept": version.version in kept,
    }


def shown_alarm(alarm: Alarm) -> dict[str, Any]:
    """An alarm as it is told."""
    return {
        "id": alarm.id,
        "at": iso(alarm.at),
        "name": alarm.name,
        "text": alarm.text,
        "version": alarm.version,
        "metrics": dict(alarm.metrics),
    }
