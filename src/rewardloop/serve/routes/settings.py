"""What managers settle for everybody, and the record of who changed what."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import JSONResponse

from rewardloop.feedback.log.events import KINDS, Event, NewEvent
from rewardloop.serve.edge.access import Caller
from rewardloop.serve.edge.times import iso
from rewardloop.serve.gateway import Gateway, TheCaller, TheGateway
from rewardloop.serve.state.preferences import Criterion

router = APIRouter(tags=["page"])

AUDITED: Final = tuple(
    kind for kind in KINDS if kind.startswith(("auth.", "settings.", "annotator.", "subject.", "policy.", "data."))
)
_SECRETS: Final = frozenset({"password", "digest", "kept"})


class SettingsChange(BaseModel):
    """What is left out stays as it is."""

    model_config = ConfigDict(extra="forbid")
    guidelines: Annotated[str, Field(max_length=20_000)] | None = None
    criteria: Annotated[list[Criterion], Field(min_length=1, max_length=32)] | None = None
    show_rewards_to_annotators: bool | None = None
    settling_s: Annotated[float, Field(ge=0, le=3600)] | None = None


class Guidelines(BaseModel):
    model_config = ConfigDict(extra="forbid")
    text: Annotated[str, Field(max_length=20_000)]


@router.get("/api/settings")
async def settings(gateway: TheGateway) -> JSONResponse:
    """Everything that is settled."""
    return JSONResponse(gateway.preferences.settings.model_dump(mode="json"))


@router.put("/api/settings")
async def change_settings(given: SettingsChange, gateway: TheGateway, caller: TheCaller) -> JSONResponse:
    """Settle something anew."""
    return await _settle(gateway, caller, given.model_dump(mode="json", exclude_none=True))


@router.put("/api/guidelines")
async def change_guidelines(given: Guidelines, gateway: TheGateway, caller: TheCaller) -> JSONResponse:
    """What annotators read beside their task."""
    return await _settle(gateway, caller, {"guidelines": given.text})


@router.get("/api/audit")
async def audit(
    gateway: TheGateway,
    after: Annotated[int, Query(ge=0, lt=2**63)] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 200,
) -> JSONResponse:
    """Who came, went, and changed what, in order."""
    events = await gateway.read(gateway.log.read, after, AUDITED, limit)
    following = events[-1].seq if len(events) == limit else None
    return JSONResponse({"items": [_entry(gateway, event) for event in events], "next": following})


async def _settle(gateway: Gateway, caller: Caller, changes: dict[str, Any]) -> JSONResponse:
    if changes:
        event = NewEvent(kind="settings.changed", actor_id=caller.id, actor_kind=caller.kind, body=changes)
        await gateway.append(event)
    return JSONResponse(gateway.preferences.settings.model_dump(mode="json"))


def _entry(gateway: Gateway, event: Event) -> dict[str, Any]:
    account = gateway.accounts.accounts.get(event.actor_id)
    return {
        "seq": event.seq,
        "at": iso(event.ts),
        "kind": event.kind,
        "what": KINDS[event.kind].partition(";")[0],
        "actor": {"id": event.actor_id, "name": account.name if account else event.actor_kind},
        "target_id": event.target_id,
        "body": {name: value for name, value in event.body.items() if name not in _SECRETS},
    }
