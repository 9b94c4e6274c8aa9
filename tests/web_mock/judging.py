"""Feedback, and the queue."""

from __future__ import annotations

import asyncio
import hashlib
import json
import uuid
from typing import Any

from fastapi import APIRouter, Request, Response

from web_mock.facts import questions
from web_mock.town import Refusal, Town, now, who

ANSWERS = {"compare": ("preference", "choice"), "rate": ("rating", "value"), "edit": ("edit", "corrected")}


def judging(town: Town) -> APIRouter:
    api = APIRouter()
    tasks: set[asyncio.Task[None]] = set()

    def accept(request: Request, body: dict[str, Any], response: Response) -> dict[str, Any]:
        key = request.headers.get("idempotency-key", uuid.uuid4().hex)
        digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
        if key in town.replies:
            if town.replies[key][0] != digest:
                raise Refusal(422, "this idempotency key was used for another body")
            response.status_code = 200
            return town.replies[key][1]
        event = town.judge(who(town, request)["id"], body)
        task = asyncio.create_task(town.ripen(event))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        town.replies[key] = (digest, {"id": event["id"], "seq": event["seq"], "status": "accepted"})
        return town.replies[key][1]

    @api.post("/v1/feedback", status_code=201)
    async def feedback(body: dict[str, Any], request: Request, response: Response) -> dict[str, Any]:
        if body.get("kind") == "comment" and body.get("text") == "refuse me":
            raise Refusal(400, "the text is not acceptable", "text")
        return accept(request, body, response)

    @api.delete("/v1/feedback/{name}")
    async def retract(name: str, request: Request) -> dict[str, Any]:
        who(town, request)
        event = next((one for one in town.log if one["id"] == name), None)
        if event is None:
            raise Refusal(404, "no such feedback")
        event["status"] = "retracted"
        return {"id": name, "status": "retracted"}

    @api.post("/v1/criteria", status_code=201)
    async def criterion(body: dict[str, Any]) -> dict[str, Any]:
        town.settings["criteria"].append(body)
        return body

    @api.get("/api/feedback/mine")
    async def mine(request: Request) -> dict[str, Any]:
        user = who(town, request)
        return {"items": [one for one in town.log if (one["annotator"] or {}).get("id") == user["id"]]}

    @api.get("/api/queue/progress")
    async def progress() -> dict[str, Any]:
        done = len(town.done)
        return {
            "mine": {"done": 40 + done, "today": done},
            "all": {"done": 118 + done, "total": 240, "overlap": 3},
            "agreement": 0.71,
        }

    @api.post("/api/queue/next")
    async def take() -> Any:
        asked = questions(town.world, "en")
        if town.queue_at >= 12:
            return Response(status_code=204)
        kind = ("compare", "rate", "edit")[town.queue_at % 3]
        question = asked[town.queue_at + 20]
        town.queue_at += 1
        name = uuid.uuid4().hex[:10]
        made = [town.complete(None, question) for _ in range(2 if kind == "compare" else 1)]
        town.assignments[name] = {
            "assignment_id": name,
            "task": kind,
            "criterion": "overall",
            "guidelines": town.settings["guidelines"],
            "lease_expires_at": now(minutes=-10),
            "prompt": [{"role": "user", "content": question}],
            "candidates": [{"completion_id": one["id"], "choice": 0, "text": one["text"]} for one in made],
            "remaining": 12 - town.queue_at,
        }
        return town.assignments[name]

    @api.get("/api/queue/disagreements")
    async def disagreements(decided: bool = False) -> dict[str, Any]:
        found = town.disagreements
        done = sum(each["verdict"] is not None for each in found)
        chosen = [each for each in found if (each["verdict"] is not None) == decided]
        return {"items": chosen, "open": len(found) - done, "decided": done}

    @api.post("/api/queue/disagreements/{name}/verdict", status_code=201)
    async def decide(name: str, body: dict[str, Any], request: Request) -> dict[str, Any]:
        item = next(each for each in town.disagreements if each["id"] == name)
        if body.keys() != {ANSWERS[item["task"]][1]}:
            raise Refusal(400, "this question wants something else")
        user = who(town, request)
        item["verdict"] = {"annotator": {"id": user["id"], "name": user["name"]}, "at": now()} | body
        return {"id": f"v-{name}", "seq": 1, "status": "accepted"}

    @api.post("/api/queue/{name}/answer", status_code=201)
    async def answer(name: str, body: dict[str, Any], request: Request, response: Response) -> dict[str, Any]:
        assignment = town.assignments[name]
        kind, field = ANSWERS[assignment["task"]]
        if body.keys() != {field}:
            raise Refusal(400, f"this question wants {field} and nothing else", field)
        targets = [{"completion_id": one["completion_id"], "choice": 0} for one in assignment["candidates"]]
        about = {"targets": targets} if len(targets) > 1 else {"target": targets[0]}
        reply = accept(request, {"kind": kind} | body | about, response)
        if name not in town.done:
            town.done.append(name)
        return reply

    @api.post("/api/queue/{name}/skip")
    async def skip(name: str) -> dict[str, Any]:
        return {"id": name}

    @api.post("/api/queue/undo")
    async def undo() -> dict[str, Any]:
        if not town.done:
            raise Refusal(404, "nothing to undo")
        return town.assignments[town.done.pop()]

    @api.get("/api/queue/tasks")
    async def list_tasks() -> dict[str, Any]:
        return {"items": list(town.tasks.values())}

    @api.post("/api/queue/tasks", status_code=201)
    async def add_task(body: dict[str, Any]) -> dict[str, Any]:
        name = uuid.uuid4().hex[:8]
        town.tasks[name] = body | {
            "id": name,
            "progress": {"ready": 12, "size": len(body.get("prompts", [])) or 60, "judged": 0},
            "created_at": now(),
        }
        town.queue_at = 0
        return town.tasks[name]

    @api.delete("/api/queue/tasks/{name}")
    async def drop_task(name: str) -> dict[str, Any]:
        town.tasks.pop(name, None)
        return {}

    return api
