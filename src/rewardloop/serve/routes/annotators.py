"""The people who judge: agreement, reliability with intervals, signs to look at, exclusions that can be taken back."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import JSONResponse

from rewardloop.feedback.log.events import NewEvent
from rewardloop.serve.edge.errors import ApiError
from rewardloop.serve.edge.times import iso
from rewardloop.serve.gateway import Gateway, TheCaller, TheGateway
from rewardloop.serve.state.people import DAYS, NEWEST, Measured, agreement_view

router = APIRouter(tags=["page"])


class Exclusion(BaseModel):
    """Why somebody's judgments shall not count."""

    model_config = ConfigDict(extra="forbid")
    reason: Annotated[str, Field(min_length=1, max_length=1000)]


@router.get("/api/annotators")
async def annotators(gateway: TheGateway) -> JSONResponse:
    """Everybody who has judged something, or could."""
    measured = await gateway.people.measured()
    names = dict.fromkeys([*gateway.accounts.accounts, *measured.by_kind])
    return JSONResponse(
        {
            "agreement": [agreement_view(each) for each in measured.agreement],
            "items": [_shown(gateway, measured, name) for name in names],
            "newest": NEWEST,  # as many judgments are measured at most
        }
    )


@router.post("/api/annotators/{annotator_id}/exclude")
async def exclude(annotator_id: str, given: Exclusion, gateway: TheGateway, caller: TheCaller) -> JSONResponse:
    """Their judgments count no longer; nothing is deleted."""
    return await _rule(gateway, caller, "annotator.excluded", annotator_id, {"reason": given.reason})


@router.post("/api/annotators/{annotator_id}/include")
async def include(annotator_id: str, gateway: TheGateway, caller: TheCaller) -> JSONResponse:
    """Their judgments count again."""
    return await _rule(gateway, caller, "annotator.included", annotator_id, {})


async def _rule(gateway: Gateway, caller: Any, kind: str, annotator_id: str, body: dict[str, Any]) -> JSONResponse:
    measured = await gateway.people.measured()
    if annotator_id not in gateway.accounts.accounts and annotator_id not in measured.by_kind:
        raise ApiError(404, "there is no such annotator", param="annotator_id")
    await gateway.append(
        NewEvent(kind=kind, actor_id=caller.id, actor_kind=caller.kind, target_id=annotator_id, body=body)
    )
    return JSONResponse(_shown(gateway, measured, annotator_id))


def _shown(gateway: Gateway, measured: Measured, name: str) -> dict[str, Any]:
    account = gateway.accounts.accounts.get(name)
    known, consistency = measured.reliability.get(name), measured.consistency.get(name)
    kinds: dict[str, int] = dict(measured.by_kind.get(name, {}))
    gold = gateway.queue.gold.get(name, [])
    ruling = gateway.people.excluded.get(name)
    line = measured.straight.get(name)
    return {
        "id": name,
        "name": account.name if account else name.removeprefix("external:"),
        "role": account.role if account else "external",
        "judgments": sum(kinds.values()),
        "by_kind": kinds,
        "reliability": known.weight if known else None,
        "low": known.interval[0] if known else None,
        "high": known.interval[1] if known else None,
        "severity": known.severity if known else None,
        "discrimination": known.discrimination if known else None,
        "lapse": known.lapse if known else None,
        "side_bias": known.side_bias if known else None,
        "consistency": consistency.same if consistency else None,
        "gold_accuracy": sum(gold) / len(gold) if gold else None,
        "straight_lining": None
        if line is None
        else {"question": line.question, "answer": line.answer, "length": line.length},
        "drift": name in measured.drifting,
        "excluded": None
        if ruling is None
        else {"reason": ruling.reason, "since": iso(ruling.time_s), "by": _name(gateway, ruling.by)},
        "daily": measured.daily.get(name, [0] * DAYS),
    }


def _name(gateway: Gateway, account_id: str) -> str:
    account = gateway.accounts.accounts.get(account_id)
    return account.name if account else account_id
