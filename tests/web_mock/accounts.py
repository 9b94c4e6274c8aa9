"""Who is here, and what they have set."""

from __future__ import annotations

import uuid
from typing import Any

from fastapi import APIRouter, Request, Response

from web_mock.town import Refusal, Town, now, public, who


def accounts(town: Town) -> APIRouter:
    api = APIRouter(prefix="/api")

    def enter(response: Response, user: dict[str, Any]) -> dict[str, Any]:
        ticket = uuid.uuid4().hex
        town.sessions[ticket] = user["id"]
        response.set_cookie("rewardloop_session", ticket, httponly=True, samesite="lax")
        return public(user)

    def checked(body: dict[str, Any]) -> dict[str, Any]:
        if len(body.get("password", "")) < 8:
            raise Refusal(400, "the password has fewer than 8 characters: choose a longer one", "password")
        if not body.get("name") or any(user["name"] == body["name"] for user in town.users.values()):
            raise Refusal(400, "this name is taken or empty: choose another", "name")
        return body

    @api.get("/state")
    async def state(request: Request) -> dict[str, Any]:
        user = town.users.get(town.sessions.get(request.cookies.get("rewardloop_session", ""), ""))
        model = {
            "id": "builtin",
            "title": "Town model" if not town.base else "stories3M",
            "chat": not town.base,
            "builtin": not town.base,
            "weight_version": f"v{town.policy['active']}",
            "context": 512,
            "languages": ["en", "zh"][: 1 if town.base else 2],
        }
        return {
            "setup_needed": not town.users,
            "user": public(user) if user else None,
            "version": "0.2.0",
            "model": model,
            "engine": "ready",
            "rewards": True,
        }

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
        return {
            "items": [{k: v for k, v in one.items() if k not in ("token", "link")} for one in town.invitations.values()]
        }

    @api.post("/invitations", status_code=201)
    async def invite(body: dict[str, Any], request: Request) -> dict[str, Any]:
        name, token = uuid.uuid4().hex[:8], uuid.uuid4().hex
        link = f"{request.base_url}join#{token}"
        town.invitations[name] = {
            "id": name,
            "role": body["role"],
            "token": token,
            "link": link,
            "expires_at": now(days=-7),
        }
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
        town.keys[name] = {
            "id": name,
            "name": body["name"],
            "scopes": body["scopes"],
            "created_at": now(),
            "last_used_at": None,
        }
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
        return {"items": [{"seq": 1, "at": now(hours=5), "what": "set up", "actor": {"id": "u-anna", "name": "anna"}}]}

    return api
