"""The socket: tokens down, live votes up."""

from __future__ import annotations

import asyncio
import json
import uuid
from typing import Any

from fastapi import WebSocket, WebSocketDisconnect

from web_mock.town import Refusal, Town, send, who


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


async def answer_message(
    town: Town, socket: WebSocket, user: dict[str, Any], message: dict[str, Any], tasks: set[asyncio.Task[None]]
) -> None:
    kind, ack = message["type"], {"type": "ack", "n": message["n"], "ok": True}
    if kind == "ping":
        return await send(socket, {"type": "pong"})
    if kind == "cancel":
        town.cancelled.add(message["request"])
    if kind == "resume":
        ack["ok"] = False
    if kind == "live":
        target = {"completion_id": message["completion_id"], "choice": message["choice"]}
        event = town.judge(
            user["id"],
            {"kind": "live", "target": target} | {k: message[k] for k in ("value", "token_index", "reaction_ms")},
        )
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
    if conversation and (
        not conversation["turns"]
        or [t["content"] for t in conversation["turns"] if t["role"] == "user"][-1:] != [question]
    ):
        conversation["turns"].append({"id": uuid.uuid4().hex[:12], "role": "user", "content": question})
        conversation["title"] = conversation["title"] or question[:60]
    name = uuid.uuid4().hex[:12]
    shown = None if message["blind"] else "v3"
    started = {"type": "started", "request": request, "completion_id": name, "choices": count, "weight_version": shown}
    await send(socket, started | {"conversation_id": message["conversation_id"]})
    made = [town.new_completion(name, choice, question, town.answer(question)) for choice in range(count)]
    for at in range(max(len(one["tokens"]) for one in made)):
        await asyncio.sleep(0.02 if "payload" not in question else 0)
        if request in town.cancelled:
            break
        for choice, one in enumerate(made):
            if at < len(one["tokens"]):
                await send(
                    socket, {"type": "tokens", "request": request, "choice": choice, "tokens": [one["tokens"][at]]}
                )
    reason = "cancelled" if request in town.cancelled else "stop"
    for choice, one in enumerate(made):
        one["finish_reason"] = reason
        if conversation and not choice:
            town.add_turn(conversation, one)
        await send(
            socket, {"type": "finished", "request": request, "choice": choice, "finish_reason": reason, "usage": {}}
        )
