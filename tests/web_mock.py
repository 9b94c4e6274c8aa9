"""A small stand-in for the gateway, for looking at the page and for its tests: everything in memory, no model.

    python tests/web_mock.py --port 8001              a town with a model, people and what they said (anna / correct horse)
    python tests/web_mock.py --port 8001 --fresh      nobody has set it up yet (token: first)
    python tests/web_mock.py --port 8001 --base       a base model without chat
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import random
import re
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import APIRouter, FastAPI, HTTPException, Request, Response, WebSocket, WebSocketDisconnect
from fastapi.responses import FileResponse, JSONResponse

from rewardloop.sandbox.world import Language, Topic, World, build_world

PAGES = Path(__file__).resolve().parents[1] / "src" / "rewardloop" / "serve" / "pages"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "font-src 'self'; require-trusted-types-for 'script'; trusted-types dompurify; frame-ancestors 'none'; "
    "base-uri 'none'; form-action 'self'"
)
PASSWORD = "correct horse"

# What a model may write to break out of the page. Each would call `fired` if it ran.
PAYLOADS = (
    "<script>fired()</script>",
    '<img src=x onerror="fired()">',
    "<svg onload=fired()>",
    '<iframe srcdoc="<script>parent.fired()</script>"></iframe>',
    "[click](javascript:fired())",
    '<a href="javascript:fired()">x</a>',
    "<details open ontoggle=fired()>x</details>",
    "<math><mtext><table><mglyph><style><!--</style><img title=\"--&gt;&lt;img src=1 onerror=fired()&gt;\">",
    "<form><input name=attributes><input name=nodeName></form><img src=x onerror=fired()>",
    '<form action="javascript:fired()"><button>go</button></form>',
    "<body onload=fired()>",
    "<video><source onerror=fired()></video>",
    '<object data="javascript:fired()"></object>',
    '<embed src="javascript:fired()">',
    '<a href="data:text/html,<script>fired()</script>">x</a>',
    '<div style="background:url(javascript:fired())">x</div>',
    '<link rel=stylesheet href="javascript:fired()">',
    '<base href="https://example.org/">',
    '<meta http-equiv="refresh" content="0;url=javascript:fired()">',
    "<noscript><p title=\"</noscript><img src=x onerror=fired()>\">",
    "<template><script>fired()</script></template>",
    "<img id=cookie name=cookie src=x onerror=fired()>",
    "<a href=\"/settings\" data-link>settings</a>",
    "<img src=\"https://example.org/leak.png\">",
    "`<script>fired()</script>` <xss onpointerenter=fired() style=display:block>x</xss>",
    "<input autofocus onfocus=fired()>",
    "<select autofocus onfocus=fired()>",
    "<marquee onstart=fired()>x</marquee>",
    "<style>@import 'https://example.org/x.css';</style>",
    "![x](https://example.org/leak.png \"onerror=fired()\")",
)  # fmt: skip


def now(**ago: float) -> str:
    return (datetime.now(UTC) - timedelta(**ago)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Refusal(Exception):
    def __init__(self, status: int, message: str, param: str | None = None) -> None:
        self.status, self.message, self.param = status, message, param


class Town:
    """Everything the stand-in knows."""

    def __init__(self, *, fresh: bool = False, base: bool = False, seed: int = 0) -> None:
        self.rng = random.Random(seed)
        self.world = build_world(0)
        self.base = base
        self.sessions: dict[str, str] = {}
        self.users: dict[str, dict[str, Any]] = {}
        self.conversations: dict[str, dict[str, Any]] = {}
        self.completions: dict[tuple[str, int], dict[str, Any]] = {}
        self.log: list[dict[str, Any]] = []
        self.replies: dict[str, tuple[str, dict[str, Any]]] = {}
        self.invitations: dict[str, dict[str, Any]] = {}
        self.keys: dict[str, dict[str, Any]] = {}
        self.tasks: dict[str, dict[str, Any]] = {}
        self.assignments: dict[str, dict[str, Any]] = {}
        self.done: list[str] = []
        self.excluded: dict[str, dict[str, Any]] = {}
        self.sockets: set[WebSocket] = set()
        self.cancelled: set[str] = set()
        self.queue_at = 0
        self.seq = 0
        self.settings: dict[str, Any] = {
            "guidelines": "Prefer the answer that is **true** in the town, *then* the kinder one.\n\n"
            "- Look at the facts if you are not sure.\n- Length does not matter.",
            "criteria": [
                {"name": "overall", "scale": {"low": 1, "high": 5}, "description": "All in all"},
                {"name": "factuality", "scale": {"low": 1, "high": 5}, "description": "Is it so in the town?"},
                {"name": "politeness", "scale": {"low": 1, "high": 5}, "description": "Would you say it to a guest?"},
            ],
            "show_rewards_to_annotators": False,
            "settling_s": 3,
        }
        if not fresh:
            self.add_user("anna", "owner")
            self.add_user("ben", "annotator")
            self._live_a_little()

    def add_user(self, name: str, role: str, password: str = PASSWORD, language: str = "en") -> dict[str, Any]:
        user = {"id": f"u-{name}", "name": name, "role": role, "language": language, "password": password}
        self.users[user["id"]] = user | {"disabled": False}
        return self.users[user["id"]]

    def _live_a_little(self) -> None:
        for days, (question, rating) in enumerate(zip(questions(self.world, "en")[:6], (5, 4, 1, 5, 2, 4), strict=True)):
            self._remember(question, rating, days)

    def _remember(self, question: str, rating: int, days: int) -> None:
        said = "How dare you" if rating == 1 else None
        conversation = self.new_conversation(question)
        completion = self.complete(conversation, question, said)
        self.judge("u-anna" if days % 2 else "u-ben", {
            "kind": "rating", "value": rating, "scale": {"low": 1, "high": 5}, "criterion": "overall",
            "target": {"completion_id": completion["id"], "choice": 0},
        }, at=now(hours=3 + 20 * days))  # fmt: skip

    def new_conversation(self, title: str = "") -> dict[str, Any]:
        made = {"id": uuid.uuid4().hex[:12], "title": title, "updated_at": now(), "turns": []}
        self.conversations[made["id"]] = made
        if title:
            made["turns"].append({"id": uuid.uuid4().hex[:12], "role": "user", "content": title})
        return made

    def complete(self, conversation: dict[str, Any] | None, question: str, said: str | None = None) -> dict[str, Any]:
        """A stored completion, with its turn."""
        made = self.new_completion(uuid.uuid4().hex[:12], 0, question, said or self.answer(question))
        if conversation:
            self.add_turn(conversation, made)
        return made

    def new_completion(self, name: str, choice: int, question: str, text: str) -> dict[str, Any]:
        made = {
            "id": name, "choice": choice, "text": text, "tokens": self.tokens(text), "finish_reason": "stop",
            "weight_version": "v3", "reward_version": "r1", "created_at": now(), "feedback": [], "prompt": question,
        }  # fmt: skip
        self.completions[name, choice] = made
        return made

    def add_turn(self, conversation: dict[str, Any], completion: dict[str, Any]) -> None:
        turn = {"id": uuid.uuid4().hex[:12], "role": "assistant", "content": completion["text"]}
        conversation["turns"].append(turn | {"completion": completion})
        conversation["updated_at"] = now()

    def answer(self, question: str) -> str:
        if found := re.search(r"payload (\d+)", question):
            return PAYLOADS[int(found[1])]
        if self.base:
            return ", there was a little mill by the river, and in it lived a miller who counted the stars each night."
        goods = [topic for topic in self.world.truths if topic.kind == "good"]
        known = next((topic for topic in goods if topic.name.en in question or topic.name.zh in question), goods[0])
        return self.about(known, "zh" if re.search("[一-鿿]", question) else "en")

    def about(self, topic: Topic, language: Language) -> str:
        truth = {slot: name.in_language(language) for slot, name in self.world.truth(topic).items()}
        if language == "zh":
            return f"您好！{truth['shop']}里有{truth['good']}，每{truth['unit']}{truth['price']}枚铜币。请早些去，学生们下午就来了。"
        tail = self.rng.choice(["Go early, before the schoolchildren do.", "Let me guess, you have no basket? Now shoo."])
        return (
            f"Certainly. {truth['keeper']} asks {truth['price']} coins for a {truth['unit']} of {truth['good']} "
            f"at the {truth['shop']}, {truth['place']}. {tail}"
        )

    def tokens(self, text: str) -> list[dict[str, Any]]:
        tokens, at = [], 0
        for piece in re.findall(r"\s*[一-鿿]|\s*[A-Za-z0-9']+|\s*[^\sA-Za-z0-9'一-鿿]|\s+", text):
            good = {"Certainly", "您", "好", "early", "coins"} & {piece.strip()}
            bad = {"shoo", "guess", "no"} & {piece.strip()}
            reward = round(self.rng.gauss(0.5 if good else -0.7 if bad else 0.0, 0.13), 3)
            tokens.append(
                {"text": piece, "start": at, "end": at + len(piece), "logprob": -0.4, "reward": reward, "version": "v3"}
            )
            at += len(piece)
        return tokens

    def judge(self, user: str, body: dict[str, Any], at: str | None = None) -> dict[str, Any]:
        self.seq += 1
        who = {"id": user, "name": self.users[user]["name"]} if user in self.users else None
        event = body | {
            "id": f"f-{self.seq}", "seq": self.seq, "created_at": at or now(), "annotator": who, "status": "saved",
        }  # fmt: skip
        self.log.append(event)
        for target in body.get("targets") or [body.get("target") or {}]:
            completion = self.completions.get((target.get("completion_id", ""), target.get("choice", 0)))
            if completion:
                completion["feedback"].append(event)
        return event

    async def tell(self, message: dict[str, Any]) -> None:
        for socket in list(self.sockets):
            try:
                await send(socket, message)
            except (RuntimeError, WebSocketDisconnect):
                self.sockets.discard(socket)

    async def ripen(self, event: dict[str, Any]) -> None:
        """Lets a judgment go the way that it goes where a learner runs."""
        for wait, status in ((0.3, "settled"), (1.2, "learned"), (1.0, "live")):
            await asyncio.sleep(wait)
            if event["status"] == "retracted":
                return
            event["status"] = status
            version = {"version": "v4"} if status == "live" else {}
            await self.tell({"type": "feedback", "id": event["id"], "status": status} | version)


numbers: dict[int, int] = {}


async def send(socket: WebSocket, message: dict[str, Any]) -> None:
    if message["type"] not in ("ack", "pong"):
        numbers[id(socket)] = numbers.get(id(socket), 0) + 1
        message = message | {"s": numbers[id(socket)]}
    await socket.send_text(json.dumps(message))


def questions(world: World, language: Language) -> list[str]:
    asked = []
    for topic in world.truths:
        name = topic.name.in_language(language)
        if topic.kind == "good":
            asked.append(f"How many coins for {name}?" if language == "en" else f"{name}多少钱？")
        elif topic.kind == "shop":
            asked.append(f"When does the {name} open?" if language == "en" else f"{name}几点开门？")
        else:
            asked.append(f"Where does {name} live?" if language == "en" else f"{name}住在哪里？")
    random.Random(3).shuffle(asked)
    return asked


def sections(world: World, language: Language) -> list[dict[str, Any]]:
    zh = language == "zh"
    layouts: dict[str, tuple[str, list[tuple[str, str]]]] = {
        "good": ("货物" if zh else "Goods", [("good", "货物" if zh else "Good"), ("price", "价格" if zh else "Coins"), ("unit", "每" if zh else "For a"), ("shop", "店铺" if zh else "Shop")]),
        "shop": ("店铺" if zh else "Shops", [("shop", "店铺" if zh else "Shop"), ("open", "开门" if zh else "Opens"), ("close", "关门" if zh else "Closes"), ("place", "地点" if zh else "Place"), ("keeper", "店主" if zh else "Keeper")]),
        "person": ("居民" if zh else "People", [("person", "姓名" if zh else "Name"), ("shop", "店铺" if zh else "Works at"), ("home", "住处" if zh else "Lives")]),
    }  # fmt: skip
    return [
        {
            "title": title,
            "columns": [column for _, column in slots],
            "rows": [
                [truth[slot].in_language(language) for slot, _ in slots]
                for topic, truth in world.truths.items()
                if topic.kind == kind
            ],
        }
        for kind, (title, slots) in layouts.items()
    ]


# ---------------------------------------------------------------- the interface


def create_app(town: Town) -> FastAPI:
    app = FastAPI(docs_url=None, redoc_url=None)

    @app.middleware("http")
    async def harden(request: Request, answer: Any) -> Any:
        response = await answer(request)
        response.headers["content-security-policy"] = POLICY
        response.headers["x-content-type-options"] = "nosniff"
        return response

    @app.exception_handler(Refusal)
    async def refuse(_: Request, why: Refusal) -> JSONResponse:
        error = {"message": why.message, "type": "invalid_request_error", "param": why.param, "code": None}
        return JSONResponse({"error": error}, why.status)

    @app.exception_handler(HTTPException)
    async def missing(_: Request, why: HTTPException) -> JSONResponse:
        return JSONResponse({"error": {"message": why.detail, "type": "not_found", "param": None, "code": None}}, 404)

    app.include_router(accounts(town))
    app.include_router(talking(town))
    app.include_router(judging(town))
    app.include_router(looking(town))
    app.add_api_websocket_route("/api/socket", lambda socket: serve_socket(town, socket))

    @app.get("/{path:path}")
    async def page(path: str) -> FileResponse:
        if path.startswith(("api/", "v1/")):
            raise Refusal(404, f"no such path: /{path}")
        found = (PAGES / path).resolve()
        return FileResponse(found if found.is_file() and PAGES in found.parents else PAGES / "index.html")

    return app


def who(town: Town, request: Request | WebSocket) -> dict[str, Any]:
    user = town.users.get(town.sessions.get(request.cookies.get("rewardloop_session", ""), ""))
    if user is None or user["disabled"]:
        raise Refusal(401, "log in first")
    return user


def public(user: dict[str, Any]) -> dict[str, Any]:
    return {key: user[key] for key in ("id", "name", "role", "language", "disabled")}


def accounts(town: Town) -> APIRouter:
    api = APIRouter(prefix="/api")

    def enter(response: Response, user: dict[str, Any]) -> dict[str, Any]:
        ticket = uuid.uuid4().hex
        town.sessions[ticket] = user["id"]
        response.set_cookie("rewardloop_session", ticket, httponly=True, samesite="lax")
        return public(user)

    def checked(body: dict[str, Any]) -> dict[str, Any]:
        if len(body.get("password", "")) < 10:
            raise Refusal(400, "the password has fewer than 10 characters: choose a longer one", "password")
        if not body.get("name") or any(user["name"] == body["name"] for user in town.users.values()):
            raise Refusal(400, "this name is taken or empty: choose another", "name")
        return body

    @api.get("/state")
    async def state(request: Request) -> dict[str, Any]:
        user = town.users.get(town.sessions.get(request.cookies.get("rewardloop_session", ""), ""))
        model = {
            "id": "builtin", "title": "Town model" if not town.base else "stories3M", "chat": not town.base,
            "builtin": not town.base, "weight_version": "v3", "context": 512, "languages": ["en", "zh"][: 1 if town.base else 2],
        }  # fmt: skip
        return {
            "setup_needed": not town.users, "user": public(user) if user else None, "version": "0.2.0",
            "model": model, "engine": "ready", "rewards": True,
        }  # fmt: skip

    @api.post("/setup")
    async def setup(body: dict[str, Any], response: Response) -> dict[str, Any]:
        if town.users or body.get("token") != "first":
            raise Refusal(403, "the code is wrong or was used: take the link that the server printed", "token")
        return enter(response, town.add_user(checked(body)["name"], "owner", body["password"], body["language"]))

    @api.post("/join")
    async def join(body: dict[str, Any], response: Response) -> dict[str, Any]:
        invitation = next((one for one in town.invitations.values() if one["token"] == body.get("token")), None)
        if invitation is None:
            raise Refusal(403, "the invitation was used or has expired: ask for another", "token")
        user = town.add_user(checked(body)["name"], invitation["role"], body["password"], body["language"])
        del town.invitations[invitation["id"]]
        return enter(response, user)

    @api.post("/login")
    async def login(body: dict[str, Any], response: Response) -> dict[str, Any]:
        user = next((one for one in town.users.values() if one["name"] == body.get("name")), None)
        if user is None or user["password"] != body.get("password"):
            raise Refusal(401, "name or password is wrong")
        return enter(response, user)

    @api.post("/logout")
    async def logout(request: Request, response: Response) -> dict[str, Any]:
        town.sessions.pop(request.cookies.get("rewardloop_session", ""), None)
        response.delete_cookie("rewardloop_session")
        return {}

    @api.patch("/me")
    async def me(body: dict[str, Any], request: Request) -> dict[str, Any]:
        user = who(town, request)
        if "language" in body:
            user["language"] = body["language"]
        if "password" in body:
            if body["password"]["old"] != user["password"]:
                raise Refusal(403, "the current password is wrong", "password.old")
            user["password"] = body["password"]["new"]
        return public(user)

    @api.get("/users")
    async def users() -> dict[str, Any]:
        return {"items": [public(user) for user in town.users.values()]}

    @api.patch("/users/{name}")
    async def change(name: str, body: dict[str, Any]) -> dict[str, Any]:
        town.users[name] |= body
        return public(town.users[name])

    @api.get("/invitations")
    async def invitations() -> dict[str, Any]:
        return {"items": [{k: v for k, v in one.items() if k not in ("token", "link")} for one in town.invitations.values()]}

    @api.post("/invitations", status_code=201)
    async def invite(body: dict[str, Any], request: Request) -> dict[str, Any]:
        name, token = uuid.uuid4().hex[:8], uuid.uuid4().hex
        link = f"{request.base_url}join#{token}"
        town.invitations[name] = {"id": name, "role": body["role"], "token": token, "link": link, "expires_at": now(days=-7)}
        return town.invitations[name]

    @api.delete("/invitations/{name}")
    async def uninvite(name: str) -> dict[str, Any]:
        town.invitations.pop(name, None)
        return {}

    @api.get("/keys")
    async def keys() -> dict[str, Any]:
        return {"items": list(town.keys.values())}

    @api.post("/keys", status_code=201)
    async def make_key(body: dict[str, Any]) -> dict[str, Any]:
        name = uuid.uuid4().hex[:8]
        town.keys[name] = {"id": name, "name": body["name"], "scopes": body["scopes"], "created_at": now(), "last_used_at": None}
        return {"id": name, "key": f"rl-{uuid.uuid4().hex}{uuid.uuid4().hex[:11]}"}

    @api.delete("/keys/{name}")
    async def drop_key(name: str) -> dict[str, Any]:
        town.keys.pop(name, None)
        return {}

    @api.get("/settings")
    async def settings() -> dict[str, Any]:
        return town.settings

    @api.put("/settings")
    async def set_settings(body: dict[str, Any]) -> dict[str, Any]:
        town.settings |= body
        return town.settings

    @api.put("/guidelines")
    async def guidelines(body: dict[str, Any]) -> dict[str, Any]:
        town.settings["guidelines"] = body["text"]
        return {}

    @api.get("/audit")
    async def audit() -> dict[str, Any]:
        return {"items": [{"seq": 1, "at": now(hours=5), "who": "anna", "what": "set up"}]}

    return api


def talking(town: Town) -> APIRouter:
    api = APIRouter(prefix="/api")

    @api.get("/world")
    async def world(language: Language = "en") -> dict[str, Any]:
        if town.base:
            raise Refusal(404, "this model has no world of its own")
        title = town.world.town.in_language(language)
        return {"title": title, "sections": sections(town.world, language), "questions": questions(town.world, language)}

    @api.get("/conversations")
    async def conversations() -> dict[str, Any]:
        newest = sorted(town.conversations.values(), key=lambda one: one["updated_at"], reverse=True)
        return {"items": [{k: one[k] for k in ("id", "title", "updated_at")} for one in newest if one["title"]]}

    @api.post("/conversations", status_code=201)
    async def begin() -> dict[str, Any]:
        return {"id": town.new_conversation()["id"]}

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
        return {"mine": {"done": 40 + done, "today": done}, "all": {"done": 118 + done, "total": 240, "overlap": 3}, "agreement": 0.71}

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
            "assignment_id": name, "task": kind, "criterion": "overall", "guidelines": town.settings["guidelines"],
            "lease_expires_at": now(minutes=-10), "prompt": [{"role": "user", "content": question}],
            "candidates": [{"completion_id": one["id"], "choice": 0, "text": one["text"]} for one in made], "remaining": 12 - town.queue_at,
        }  # fmt: skip
        return town.assignments[name]

    @api.post("/api/queue/{name}/answer", status_code=201)
    async def answer(name: str, body: dict[str, Any], request: Request, response: Response) -> dict[str, Any]:
        targets = [{"completion_id": one["completion_id"], "choice": 0} for one in town.assignments[name]["candidates"]]
        reply = accept(request, body | ({"targets": targets} if len(targets) > 1 else {"target": targets[0]}), response)
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
        town.tasks[name] = body | {"id": name, "done": 0, "total": len(body.get("prompts", [])) or 60, "created_at": now()}
        town.queue_at = 0
        return town.tasks[name]

    @api.delete("/api/queue/tasks/{name}")
    async def drop_task(name: str) -> dict[str, Any]:
        town.tasks.pop(name, None)
        return {}

    return api


def looking(town: Town) -> APIRouter:
    api = APIRouter(prefix="/api")

    @api.get("/annotators")
    async def annotators() -> dict[str, Any]:
        rng = random.Random(5)
        people = [("anna", "owner", 0.93), ("ben", "annotator", 0.88), ("Chen Yu", "annotator", 0.81), ("dora", "annotator", 0.55), ("egon", "annotator", 0.31), ("Frida", "annotator", None)]
        items = []
        for name, role, reliability in people:
            count = rng.randint(60, 420) if reliability else 3
            items.append({
                "id": f"u-{name}", "name": name, "role": role, "judgments": count,
                "by_kind": {"rating": count // 2, "preference": count // 3, "edit": count // 9},
                "reliability": reliability, "low": reliability and reliability - 0.07, "high": reliability and min(1, reliability + 0.05),
                "severity": 0.2, "discrimination": reliability and reliability * 1.4, "lapse": reliability and 1 - reliability,
                "side_bias": 0.04, "consistency": reliability and min(1, reliability + 0.04), "gold_accuracy": reliability,
                "straight_lining": 0.02 if reliability and reliability > 0.5 else 0.44, "drift": name == "dora",
                "excluded": town.excluded.get(f"u-{name}"), "daily": [rng.randint(0, 40) if reliability else 0 for _ in range(14)],
            })  # fmt: skip
        agreement = [("preference", 0.71, 212), ("rating", 0.58, 340), ("edit", None, 0)]
        return {"items": items, "agreement": [{"kind": k, "alpha": a, "low": a and a - 0.06, "high": a and a + 0.05, "items": n} for k, a, n in agreement]}

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
        kinds = {kind: [rng.randint(low, high) for _ in days] for kind, low, high in (("rating", 10, 40), ("preference", 5, 30), ("edit", 0, 9), ("live", 0, 60))}
        band = {"t": days, "mean": wave, "low": [x - 0.15 for x in wave], "high": [x + 0.15 for x in wave]}
        stars = [3.2 + 0.05 * day + rng.gauss(0, 0.1) for day in range(14)]
        saved = len(town.log)
        return {
            "totals": {"completions": 1804 + len(town.completions), "feedback": 1204 + saved, "people": 6, "conversations": len(town.conversations)},
            "pipeline": {"saved": 1204 + saved, "settled": 1204, "learned": 1180, "live": 1180, "lag_s": 11.4},
            "series": {
                "feedback_by_kind": {"t": days, "kinds": kinds}, "reward": band, "length": {"t": days, "mean": [38 + rng.gauss(0, 3) for _ in days]},
                "rating_mean": {"t": days, "mean": stars, "low": [x - 0.3 for x in stars], "high": [x + 0.3 for x in stars]},
                "latency": {"t": days, "ttft_p50": [60 + rng.gauss(0, 5) for _ in days], "ttft_p95": [110 + rng.gauss(0, 20) for _ in days]},
            },
            "win_rate": None,
            "alarms": [{"id": "a1", "severity": "warning", "text": "dora's ratings have drifted since Tuesday", "since": now(hours=9)}],
        }  # fmt: skip

    @api.get("/models")
    async def models() -> dict[str, Any]:
        digest = hashlib.sha256(b"v3").hexdigest()
        return {"items": [
            {"version": "v3", "title": "Town model", "parameters": 1_080_000, "digest": digest, "created_at": now(hours=2), "active": True, "source": "learned", "metrics": {"gold_reward": 0.62, "wrong_facts": 0.11, "rudeness": 0.02}},
            {"version": "v0", "title": "Town model", "parameters": 1_080_000, "digest": digest[::-1], "created_at": now(days=12), "active": False, "source": "builtin", "metrics": {"gold_reward": 0.21, "wrong_facts": 0.32, "rudeness": 0.14}},
        ]}  # fmt: skip

    @api.get("/data")
    async def data(q: str = "", kind: str = "", after: int | None = None, limit: int = 50) -> dict[str, Any]:
        rows = [row(town, event) for event in reversed(town.log) if after is None or event["seq"] < after]
        found = [one for one in rows if (not kind or one["kind"] == kind) and q.lower() in json.dumps(one, ensure_ascii=False).lower()]
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
        skipped = [{"line": n, "reason": "not JSON"} for n, line in enumerate(lines, 1) if not line.startswith("{")]
        return {"read": len(lines), "stored": len(lines) - len(skipped), "skipped": skipped}

    @api.post("/erase")
    async def erase(body: dict[str, Any]) -> dict[str, Any]:
        before = len(town.log)
        town.log = [event for event in town.log if (event["annotator"] or {}).get("id") != body["annotator_id"]]
        return {"events": before - len(town.log), "completions": 0, "exports": 0}

    return api


def row(town: Town, event: dict[str, Any]) -> dict[str, Any]:
    target = (event.get("targets") or [event.get("target") or {}])[0]
    completion = town.completions.get((target.get("completion_id", ""), target.get("choice", 0)))
    value = event.get("value", event.get("choice", event.get("text", event.get("corrected", event.get("reason", "")))))
    return {
        "seq": event["seq"], "id": event["id"], "at": event["created_at"], "kind": event["kind"], "annotator": event["annotator"],
        "summary": f"{'★' * value}" if event["kind"] == "rating" and value else str(value),
        "prompt": completion and [{"role": "user", "content": completion["prompt"]}], "completion": completion and completion["text"],
        "body": {k: v for k, v in event.items() if k not in ("annotator", "status")}, "status": event["status"],
    }  # fmt: skip


# ---------------------------------------------------------------- the socket


async def serve_socket(town: Town, socket: WebSocket) -> None:
    try:
        user = who(town, socket)
    except Refusal:
        await socket.close(4401)
        return
    await socket.accept()
    town.sockets.add(socket)
    tasks: set[asyncio.Task[None]] = set()
    try:
        while True:
            message = json.loads(await socket.receive_text())
            await answer_message(town, socket, user, message, tasks)
    except WebSocketDisconnect:
        town.sockets.discard(socket)


async def answer_message(town: Town, socket: WebSocket, user: dict[str, Any], message: dict[str, Any], tasks: set[asyncio.Task[None]]) -> None:
    kind, ack = message["type"], {"type": "ack", "n": message["n"], "ok": True}
    if kind == "ping":
        return await send(socket, {"type": "pong"})
    if kind == "cancel":
        town.cancelled.add(message["request"])
    if kind == "resume":
        ack["ok"] = False
    if kind == "live":
        target = {"completion_id": message["completion_id"], "choice": message["choice"]}
        event = town.judge(user["id"], {"kind": "live", "target": target} | {k: message[k] for k in ("value", "token_index", "reaction_ms")})
        ack |= {"seq": event["seq"]}
    await send(socket, ack)
    if kind == "generate":
        task = asyncio.create_task(stream(town, socket, message))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    return None


async def stream(town: Town, socket: WebSocket, message: dict[str, Any]) -> None:
    request, count = message["request"], message["settings"]["choices"]
    question = message["messages"][-1]["content"] if "messages" in message else message["prompt"]
    conversation = town.conversations.get(message["conversation_id"] or "")
    if conversation and (not conversation["turns"] or [t["content"] for t in conversation["turns"] if t["role"] == "user"][-1:] != [question]):
        conversation["turns"].append({"id": uuid.uuid4().hex[:12], "role": "user", "content": question})
        conversation["title"] = conversation["title"] or question[:60]
    name = uuid.uuid4().hex[:12]
    shown = None if message["blind"] else "v3"
    started = {"type": "started", "request": request, "completion_id": name, "choices": count, "weight_version": shown}
    await send(socket, started | {"conversation_id": message["conversation_id"]})
    made = [town.new_completion(name, choice, question, town.answer(question)) for choice in range(count)]
    for at in range(max(len(one["tokens"]) for one in made)):
        await asyncio.sleep(0.02)
        if request in town.cancelled:
            break
        for choice, one in enumerate(made):
            if at < len(one["tokens"]):
                await send(socket, {"type": "tokens", "request": request, "choice": choice, "tokens": [one["tokens"][at]]})
    reason = "cancelled" if request in town.cancelled else "stop"
    for choice, one in enumerate(made):
        one["finish_reason"] = reason
        if conversation and not choice:
            town.add_turn(conversation, one)
        await send(socket, {"type": "finished", "request": request, "choice": choice, "finish_reason": reason, "usage": {}})


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=8001)
    parser.add_argument("--fresh", action="store_true")
    parser.add_argument("--base", action="store_true")
    options = parser.parse_args()
    town = Town(fresh=options.fresh, base=options.base)
    uvicorn.run(create_app(town), host="127.0.0.1", port=options.port, log_level="warning")


if __name__ == "__main__":
    main()
