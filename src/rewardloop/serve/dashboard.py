"""The state of things in numbers: how much was said, how fast it was answered, what people thought of it."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable
from statistics import mean, quantiles
from typing import Any, Final

from fastapi import APIRouter
from sqlalchemy import func, select
from starlette.responses import JSONResponse

from rewardloop.feedback.log.database import reading
from rewardloop.feedback.log.event_log import LogReader
from rewardloop.feedback.log.schema import completion, event, feedback_current
from rewardloop.serve.account_routes import iso
from rewardloop.serve.gateway import Gateway, TheGateway

router = APIRouter(tags=["page"])

NEWEST: Final = 5000  # events that curves are drawn from
HOUR_S: Final = 3600
DAY_S: Final = 24 * HOUR_S


@router.get("/api/dashboard")
async def dashboard(gateway: TheGateway) -> JSONResponse:
    """Totals, the way of a judgment, curves, alarms."""
    shown = await gateway.read(_numbers, gateway.log, gateway.preferences.settings.settling_s)
    shown["series"]["latency"] = _latency(gateway)
    shown["alarms"] = await _alarms(gateway)
    return JSONResponse(shown)


@router.get("/api/models")
async def models(gateway: TheGateway) -> JSONResponse:
    """What is being served. Versions that were learned stand here, too, once there are some."""
    info = await gateway.engine.model()
    item: dict[str, Any] = {
        "version": f"v{info.weight_version}",
        "title": gateway.model_title,
        "parameters": info.parameters,
        "context": info.context,
        "reward_version": info.reward_version,
        "active": True,
        "source": "as it was given",
        "metrics": {},
    }
    return JSONResponse({"items": [item]})


def _numbers(log: LogReader, settling_s: float) -> dict[str, Any]:
    now = time.time()
    with reading(log.reader) as connection:

        def count(query: Any) -> int:
            return int(connection.scalar(query) or 0)

        feedback = count(select(func.count()).select_from(feedback_current))
        settled = count(
            select(func.count())
            .select_from(feedback_current)
            .where(feedback_current.c.ts <= now - settling_s, feedback_current.c.ready_seq.is_not(None))
        )
        totals = {
            "completions": count(select(func.count()).where(completion.c.finished_seq.is_not(None))),
            "feedback": feedback,
            "people": count(select(func.count(feedback_current.c.subject_id.distinct()))),
            "conversations": count(select(func.count()).where(event.c.kind == "conversation.started")),
        }
        kinds = connection.execute(
            select(feedback_current.c.ts, feedback_current.c.kind).order_by(feedback_current.c.seq.desc()).limit(NEWEST)
        ).all()
        ratings = connection.execute(
            select(event.c.ts, event.c.body)
            .join(feedback_current, feedback_current.c.id == event.c.id)
            .where(feedback_current.c.kind == "rating")
            .order_by(event.c.seq.desc())
            .limit(NEWEST)
        ).all()
        answers = connection.execute(
            select(event.c.ts, event.c.body)
            .where(event.c.kind == "completion.finished")
            .order_by(event.c.seq.desc())
            .limit(NEWEST)
        ).all()
    return {
        "totals": totals,
        "pipeline": {"saved": feedback, "settled": settled, "learned": 0, "live": 0, "lag_s": None},
        "series": {
            "feedback_by_kind": _by_kind([(row.ts, row.kind) for row in kinds]),
            "rating_mean": _means((row.ts, share_of_scale(row.body)) for row in ratings),
            "length": _means((row.ts, float(len(row.body["text"]))) for row in answers),
            "reward": _means(
                (row.ts, sum(row.body["token_rewards"]))
                for row in answers
                if str(row.body.get("reward_version", "")).startswith("phi")
            ),
        },
        "win_rate": None,
    }


def share_of_scale(body: dict[str, Any]) -> float:
    """A rating as a share of its scale: 0 the worst, 1 the best."""
    scale = body.get("scale") or {"low": 1, "high": 5}
    return float((body["value"] - scale["low"]) / (scale["high"] - scale["low"]))


def _width(times: Iterable[float]) -> float:
    """Seconds that one point of a curve stands for: an hour while all is young, a day later."""
    first = min(times, default=time.time())
    return HOUR_S if time.time() - first < 3 * DAY_S else DAY_S


def _by_kind(seen: list[tuple[float, str]]) -> dict[str, Any]:
    width = _width(at for at, _ in seen)
    counts: dict[float, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for at, kind in seen:
        counts[at // width * width][kind] += 1
    times = sorted(counts)
    kinds = sorted({kind for _, kind in seen})
    return {"t": times, "kinds": {kind: [counts[at][kind] for at in times] for kind in kinds}}


def _means(seen: Iterable[tuple[float, float]]) -> dict[str, Any]:
    """Mean and 95 % interval (normal) in each stretch of time."""
    values = list(seen)
    width = _width(at for at, _ in values)
    bins: dict[float, list[float]] = defaultdict(list)
    for at, value in values:
        bins[at // width * width].append(value)
    times = sorted(bins)
    centers = [mean(bins[at]) for at in times]
    reach = [1.96 * (_variance(bins[at]) / len(bins[at])) ** 0.5 for at in times]
    return {
        "t": times,
        "mean": centers,
        "low": [center - half for center, half in zip(centers, reach, strict=True)],
        "high": [center + half for center, half in zip(centers, reach, strict=True)],
    }


def _variance(values: list[float]) -> float:
    center = mean(values)
    return sum((value - center) ** 2 for value in values) / max(len(values) - 1, 1)


def _latency(gateway: Gateway) -> dict[str, Any]:
    """Time to the first token since this process began, minute by minute."""
    bins: dict[float, list[float]] = defaultdict(list)
    for at, seconds in gateway.telemetry.first_tokens:
        bins[at // 60 * 60].append(seconds)
    times = sorted(bins)
    cuts = [quantiles(bins[at], n=20, method="inclusive") if len(bins[at]) > 1 else bins[at] * 19 for at in times]
    return {"t": times, "ttft_p50": [cut[9] for cut in cuts], "ttft_p95": [cut[18] for cut in cuts]}


async def _alarms(gateway: Gateway) -> list[dict[str, Any]]:
    alarms = []
    if not await gateway.engine.healthy():
        alarms.append(("engine", "high", "The engine is not answering; it is started again by itself."))
    if gateway.writer.backlog > 1000:
        alarms.append(("backlog", "medium", f"{gateway.writer.backlog} writes are waiting for the disk."))
    now = iso(time.time())
    return [{"id": name, "severity": severity, "text": text, "since": now} for name, severity, text in alarms]
