"""What there is to look at: conversations, people, figures, data."""

from __future__ import annotations

import hashlib
import json
import random
from typing import Any

from fastapi import APIRouter, Request, Response

from rewardloop.sandbox.world import Language
from web_mock.facts import questions, sections
from web_mock.town import Refusal, Town, now, who


def talking(town: Town) -> APIRouter:
    api = APIRouter(prefix="/api")

    @api.get("/world")
    async def world(language: Language = "en") -> dict[str, Any]:
        if town.base:
            raise Refusal(404, "this model has no world of its own")
        name = town.world.town.in_language(language)
        title = f"The town of {name}" if language == "en" else f"{name}小镇"
        return {
            "title": title,
            "sections": sections(town.world, language),
            "questions": questions(town.world, language),
        }

    @api.get("/conversations")
    async def conversations() -> dict[str, Any]:
        newest = sorted(town.conversations.values(), key=lambda one: one["updated_at"], reverse=True)
        return {"items": [{k: one[k] for k in ("id", "title", "updated_at")} for one in newest if one["title"]]}

    @api.post("/conversations", status_code=201)
    async def begin() -> dict[str, Any]:
        return {"id": town.new_conversation()["id"]}

    @api.get("/completions/{name}")
    async def completion(name: str) -> dict[str, Any]:
        return {"id": name, "choices": [made for (known, _), made in town.completions.items() if known == name]}

    @api.get("/conversations/{name}")
    async def conversation(name: str) -> dict[str, Any]:
        if name not in town.conversations:
            raise Refusal(404, "this conversation does not exist: it may have been deleted")
        return town.conversations[name]

    @api.delete("/conversations/{name}")
    async def forget(name: str) -> dict[str, Any]:
        town.conversations.pop(name, None)
        return {}

    return api


def looking(town: Town) -> APIRouter:
    api = APIRouter(prefix="/api")

    @api.get("/annotators")
    async def annotators() -> dict[str, Any]:
        rng = random.Random(5)
        people = [
            ("anna", "owner", 0.93),
            ("ben", "annotator", 0.88),
            ("Chen Yu", "annotator", 0.81),
            ("dora", "annotator", 0.55),
            ("egon", "annotator", 0.31),
            ("Frida", "annotator", None),
            ("gerd", "annotator", 0.78),
            ("hana", "annotator", 0.9),
            ("ivo", "external", 0.67),
        ]
        items = []
        for name, role, reliability in people:
            count = rng.randint(60, 420) if reliability else 3
            items.append(
                {
                    "id": f"u-{name}",
                    "name": name,
                    "role": role,
                    "judgments": count,
                    "by_kind": {"rating": count // 2, "preference": count // 3, "edit": count // 9},
                    "reliability": reliability,
                    "low": reliability and reliability - 0.07,
                    "high": reliability and min(1, reliability + 0.05),
                    "severity": 0.2,
                    "discrimination": reliability and reliability * 1.4,
                    "lapse": reliability and 1 - reliability,
                    "side_bias": 0.04,
                    "consistency": reliability and min(1, reliability + 0.04),
                    "gold_accuracy": reliability,
                    "straight_lining": {"question": "preference", "answer": "first", "length": 17}
                    if name == "egon"
                    else None,
                    "drift": name == "dora",
                    "excluded": town.excluded.get(f"u-{name}"),
                    "daily": [rng.randint(0, 40) if reliability else 0 for _ in range(14)],
                }
            )
        agreement = [("preference", 0.71, 212), ("rating 1-5", 0.58, 340), ("edit", None, 0)]
        return {
            "items": items,
            "newest": 20_000,
            "agreement": [
                {"kind": k, "alpha": a, "low": a and a - 0.06, "high": a and a + 0.05, "items": n}
                for k, a, n in agreement
            ],
        }

    @api.post("/annotators/{name}/exclude")
    async def exclude(name: str, body: dict[str, Any], request: Request) -> dict[str, Any]:
        town.excluded[name] = {"reason": body["reason"], "since": now(), "by": who(town, request)["name"]}
        return {}

    @api.post("/annotators/{name}/include")
    async def include(name: str) -> dict[str, Any]:
        town.excluded.pop(name, None)
        return {}

    @api.get("/dashboard")
    async def dashboard() -> dict[str, Any]:
        rng = random.Random(1)
        days = [now(days=13 - day) for day in range(14)]
        wave = [0.1 + 0.05 * day + rng.gauss(0, 0.08) for day in range(14)]
        kinds = {
            kind: [rng.randint(low, high) for _ in days]
            for kind, low, high in (("rating", 10, 40), ("preference", 5, 30), ("edit", 0, 9), ("live", 0, 60))
        }
        band = {"t": days, "mean": wave, "low": [x - 0.15 for x in wave], "high": [x + 0.15 for x in wave]}
        stars = [0.6 + 0.02 * day + rng.gauss(0, 0.02) for day in range(14)]
        saved = len(town.log)
        return {
            "totals": {
                "completions": 1804 + len(town.completions),
                "feedback": 1204 + saved,
                "people": 6,
                "conversations": len(town.conversations),
            },
            "pipeline": {"saved": 1204 + saved, "settled": 1204, "learned": 1180, "live": 1180, "lag_s": 11.4},
            "series": {
                "feedback_by_kind": {"t": days, "kinds": kinds},
                "reward": band,
                "length": {"t": days, "mean": [38 + rng.gauss(0, 3) for _ in days]},
                "rating_mean": {
                    "t": days,
                    "mean": stars,
                    "low": [x - 0.06 for x in stars],
                    "high": [x + 0.06 for x in stars],
                },
                "latency": {
                    "t": days,
                    "ttft_p50": [0.06 + rng.gauss(0, 0.005) for _ in days],
                    "ttft_p95": [0.11 + rng.gauss(0, 0.02) for _ in days],
                },
            },
            "versions": {
                "version": [1, 2, 3, 4],
                "metrics": {
                    "held_out/win_rate": [0.52, 0.58, 0.66, 0.64],
                    "held_out/win_rate_low": [0.44, 0.5, 0.58, 0.57],
                    "held_out/win_rate_high": [0.6, 0.66, 0.74, 0.71],
                    "policy/kl": [0.3, 0.9, 1.6, 2.4],
                    "held_out/proxy": [0.1, 0.4, 0.6, 0.7],
                    "held_out/reward": [0.1, 0.3, 0.5, 0.45],
                    "text/length": [88, 90, 92, 121],
                    "potential/explained_variance": [0.1, 0.2, 0.3, 0.33],
                    "potential/gae_lambda": [1, 0.9, 0.8, 0.8],
                    "policy/entropy": [1.3, 1.2, 1.1, 1.0],
                    "held_out/wrong_facts": [0.3, 0.25, 0.2, None],
                },
            },
            "win_rate": {"value": 0.66, "low": 0.58, "high": 0.74},
            "learner": {"phase": "practice", "iteration": 2, "of": 6, "judgments": 1180, "at": now()},
            "paused": {"reason": town.pause_reason, "since": now()} if town.policy["paused"] else None,
            "alarms": [
                {
                    "id": "a1",
                    "severity": "warning",
                    "text": "dora's ratings have drifted since Tuesday",
                    "since": now(hours=9),
                }
            ],
        }

    @api.get("/models")
    async def models() -> dict[str, Any]:
        active = town.policy["active"]
        return {
            "items": [version(number, active=number == active) for number in (4, 3, 0)],
            "before": f"v{town.before[-1]}" if town.before else None,
            "paused": town.policy["paused"],
            "pause_reason": town.pause_reason,
            "trouble": None,
        }

    @api.post("/policy/activate")
    async def activate(body: dict[str, Any]) -> dict[str, Any]:
        town.before.append(town.policy["active"])
        town.policy["active"] = body["version"]
        await town.tell({"type": "policy", **town.policy})
        return {}

    @api.post("/policy/rollback")
    async def roll_back() -> dict[str, Any]:
        town.policy["active"] = town.before.pop()
        await town.tell({"type": "policy", **town.policy})
        return {}

    @api.post("/policy/learning")
    async def rest(body: dict[str, Any]) -> dict[str, Any]:
        town.policy["paused"], town.pause_reason = body["paused"], body["reason"]
        await town.tell({"type": "policy", **town.policy})
        return {}

    @api.get("/data")
    async def data(q: str = "", kind: str = "", after: int | None = None, limit: int = 50) -> dict[str, Any]:
        rows = [row(town, event) for event in reversed(town.log) if after is None or event["seq"] < after]
        found = [
            one
            for one in rows
            if (not kind or one["kind"] == kind) and q.lower() in json.dumps(one, ensure_ascii=False).lower()
        ]
        return {"items": found[:limit], "next": found[limit - 1]["seq"] if len(found) > limit else None}

    @api.post("/exports", status_code=201)
    async def export() -> dict[str, Any]:
        return {"id": "e1", "rows": len(town.log), "sha256": hashlib.sha256(b"x").hexdigest(), "url": "/api/exports/e1"}

    @api.get("/exports/{name}")
    async def download(name: str) -> Response:
        return Response("".join(json.dumps(event) + "\n" for event in town.log), media_type="application/jsonl")

    @api.post("/imports", status_code=201)
    async def take_in(request: Request) -> dict[str, Any]:
        lines = (await request.body()).decode().splitlines()
        wrong = sum(not line.startswith("{") for line in lines)
        skipped = [{"reason": "not JSON", "count": wrong}] * (wrong > 0)
        return {"read": len(lines), "stored": len(lines) - wrong, "skipped": skipped}

    @api.post("/erase")
    async def erase(body: dict[str, Any]) -> dict[str, Any]:
        before = len(town.log)
        town.log = [event for event in town.log if (event["annotator"] or {}).get("id") != body["annotator_id"]]
        return {"events": before - len(town.log), "completions": 0, "exports": 0}

    return api


def version(number: int, *, active: bool) -> dict[str, Any]:
    found: dict[str, Any] = {
        "version": f"v{number}",
        "title": "Town model",
        "parameters": 1_080_000,
        "active": active,
        "source": "learned" if number else "given",
        "kept": True,
        "metrics": {},
    }
    if number:
        win_rate = {4: (0.64, 0.57, 0.71), 3: (0.66, 0.58, 0.74)}[number]
        names = ("held_out/win_rate", "held_out/win_rate_low", "held_out/win_rate_high")
        found |= {
            "digest": hashlib.sha256(str(number).encode()).hexdigest(),
            "created_at": now(hours=6 - number),
            "feedback": 1100 + 20 * number,
            "passed": number == 3,
            "reasons": ["length", "not_better"] if number == 4 else [],
            "metrics": {**dict(zip(names, win_rate, strict=True)), "policy/kl": 1.6, "held_out/wrong_facts": 0.2},
        }
    return found


def row(town: Town, event: dict[str, Any]) -> dict[str, Any]:
    targets = event.get("targets") or [event.get("target") or {}]
    about = [town.completions.get((each.get("completion_id", ""), each.get("choice", 0))) for each in targets]
    completion = about[0]
    names = ("value", "choice", "text", "corrected", "reason", "category")
    value = next((event[name] for name in names if name in event), " ".join(map(str, event.get("ranks", ()))))
    return {
        "seq": event["seq"],
        "id": event["id"],
        "at": event["created_at"],
        "kind": event["kind"],
        "annotator": event["annotator"],
        "summary": f"{'★' * value}" if event["kind"] == "rating" and value else str(value),
        "prompt": completion and [{"role": "user", "content": completion["prompt"]}],
        "completion": completion and completion["text"],
        "completions": [each["text"] for each in about if each],
        "body": {k: v for k, v in event.items() if k not in ("annotator", "status")},
        "status": event["status"],
    }
