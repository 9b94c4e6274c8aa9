"""The state of things in numbers: how much was said, how fast it was answered, what people thought of it."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import accumulate
from statistics import mean, median, quantiles
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query
from sqlalchemy import func, select
from starlette.responses import JSONResponse

from rewardloop.feedback.log.database import reading
from rewardloop.feedback.log.event_log import LogReader
from rewardloop.feedback.log.schema import completion, event, feedback_current
from rewardloop.serve.edge.errors import ApiError
from rewardloop.serve.edge.times import iso
from rewardloop.serve.engine.client import ModelInfo
from rewardloop.serve.gateway import Gateway, TheGateway
from rewardloop.serve.state.policy import GIVEN, MOST_LISTED, Activation, Policy, described

router = APIRouter(tags=["page"])

NEWEST: Final = 5000  # events that curves are drawn from
HOUR_S: Final = 3600
DAY_S: Final = 24 * HOUR_S
ALARM_S: Final = DAY_S  # an alarm of the learner is shown for so long
MOST_ALARMS: Final = 5  # of the learner
MOST_VERSIONS: Final = 200  # that curves are drawn of


@router.get("/api/dashboard")
async def dashboard(gateway: TheGateway) -> JSONResponse:
    """Totals, the way of a judgment, curves, alarms."""
    policy = gateway.policy
    shown = await gateway.read(_numbers, gateway.log, gateway.preferences.settings.settling_s, policy)
    shown |= {
        "versions": _versions(policy),
        "win_rate": _win_rate(policy),
        "learner": policy.progress,
        "active": policy.serving,
        "paused": {"reason": policy.pause_reason, "since": iso(policy.paused_at or 0)} if policy.paused else None,
    }
    shown["series"]["latency"] = _latency(gateway)
    shown["alarms"] = await _alarms(gateway)
    return JSONResponse(shown)


@router.get("/api/models")
async def models(gateway: TheGateway, older_than: Annotated[int | None, Query(ge=0, lt=2**53)] = None) -> JSONResponse:
    """Every version, the newest first: what was found of it, whether it is served. Also while the engine is down.

    All versions that are kept, and the newest hundred of those that are gone; `next`, as `older_than`, brings more.
    """
    state = await gateway.read(described, gateway.policy, gateway.weights, MOST_LISTED, older_than)
    try:
        served: ModelInfo | None = await gateway.engine.model()
    except ApiError:
        served = None
    info = served or gateway.engine.last
    items = [
        {
            "version": f"v{version['version']}",
            "title": gateway.model_title,
            "parameters": info.parameters if info else None,
            "context": info.context if info else None,
            "reward_version": served.reward_version if served and version["active"] else version["reward_version"],
            "active": version["active"],
            "source": "given" if version["version"] == GIVEN else "learned",
            "created_at": version["published_at"],
            **{name: version[name] for name in ("digest", "feedback", "passed", "reasons", "kept", "metrics")},
        }
        for version in state["versions"]
    ]
    return JSONResponse(
        {
            "items": items,
            "engine": "down" if served is None else "ready",
            "before": None if state["before"] is None else f"v{state['before']}",
            **{name: state[name] for name in ("paused", "pause_reason", "trouble", "next")},
        }
    )


def count_settled(log: LogReader, settling_s: float, after: int = 0) -> int:
    """Judgments that may be learned from, and became ready after this place of the log."""
    current = feedback_current.c
    old_enough = current.ts <= time.time() - settling_s
    with reading(log.reader) as connection:
        query = select(func.count()).select_from(feedback_current).where(old_enough, current.ready_seq > after)
        return int(connection.scalar(query) or 0)


def _numbers(log: LogReader, settling_s: float, policy: Policy) -> dict[str, Any]:
    settled = count_settled(log, settling_s)
    with reading(log.reader) as connection:

        def count(query: Any) -> int:
            return int(connection.scalar(query) or 0)

        feedback = count(select(func.count()).select_from(feedback_current))
        learned, live = (
            count(select(func.count()).select_from(feedback_current).where(feedback_current.c.ready_seq <= seq))
            for seq in (policy.learned, policy.live)
        )
        ready = connection.execute(
            select(feedback_current.c.ts, feedback_current.c.ready_seq)
            .where(feedback_current.c.ready_seq <= policy.live)
            .order_by(feedback_current.c.ready_seq.desc())
            .limit(NEWEST)
        ).all()
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
            .join(feedback_current, feedback_current.c.seq == event.c.seq)
            .where(feedback_current.c.kind == "rating")
            .order_by(feedback_current.c.seq.desc())
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
        "pipeline": {
            "saved": feedback,
            "settled": settled,
            "learned": learned,
            "live": live,
            "lag_s": _lag([(row.ts, row.ready_seq) for row in ready], policy.activations),
        },
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
    }


def _lag(judged: Iterable[tuple[float, int]], activations: Sequence[Activation]) -> float | None:
    """Median time from a judgment to the first version that was served with it, seconds; `judged`: time and place."""
    reached = list(accumulate((each.last_seq for each in activations), max))
    lags = []
    for at, seq in judged:
        first = bisect_left(reached, seq)
        if first < len(activations):
            lags.append(activations[first].at - at)
    return median(lags) if lags else None


def _versions(policy: Policy) -> dict[str, Any]:
    """What was found of each version, as curves over their numbers."""
    shown = [policy.versions[number] for number in sorted(policy.versions)][-MOST_VERSIONS:]
    names = sorted({name for version in shown for name in version.metrics})
    curves = {name: [version.metrics.get(name) for version in shown] for name in names}
    return {
        "version": [version.version for version in shown],
        "metrics": {name: values for name, values in curves.items() if any(value is not None for value in values)},
    }


def _win_rate(policy: Policy) -> dict[str, Any] | None:
    """Of the active version against the model as it was given."""
    found = policy.versions[policy.serving].metrics if policy.serving in policy.versions else {}
    value, low, high = (found.get(f"held_out/win_rate{end}") for end in ("", "_low", "_high"))
    return None if value is None or low is None or high is None else {"value": value, "low": low, "high": high}


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
    now = time.time()
    alarms = []
    if not await gateway.engine.healthy():
        alarms.append(("engine", "high", "The engine is not answering; it is started again by itself.", now))
    if gateway.writer.backlog > 1000:
        alarms.append(("backlog", "medium", f"{gateway.writer.backlog} writes are waiting for the disk.", now))
    policy = gateway.policy
    if policy.trouble is not None:
        alarms.append(("policy", "high", policy.trouble, now))
    if policy.paused:
        why = policy.pause_reason or "no reason given"
        alarms.append(("paused", "medium", f"Learning is paused: {why}", policy.paused_at or now))
    newest = [alarm for alarm in reversed(policy.alarms) if now - alarm.at < ALARM_S][:MOST_ALARMS]
    alarms += [(alarm.id, "high", alarm.text, alarm.at) for alarm in newest]
    return [{"id": name, "severity": severity, "text": text, "since": iso(at)} for name, severity, text, at in alarms]
