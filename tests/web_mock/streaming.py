"""The socket: tokens down, live votes up."""

from __future__ import annotations

import asyncio
import json
import uuid
from typing import Any

from fastapi import WebSocket, WebSocketDisconnect

from web_mock.town import Refusal, Tab, Town, who


async def serve_socket(town: Town, socket: WebSocket, name: str) -> None:
    try:
        user = who(town, socket)
    except Refusal:
        await socket.close(4401)
        return
    await socket.accept()
    tab = town.tabs.setdefault(name, Tab())
    tab.socket = socket
    try:
        while True:
            await answer_message(town, tab, user, json.loads(await socket.receive_text()))
    except (WebSocketDisconnect, RuntimeError):
        tab.socket = None


async def answer_message(town: Town, tab: Tab, user: dict[str, Any], message: dict[str, Any]) -> None:
    kind, ack = message["type"], {"type": "ack", "n": message["n"], "ok": True}
    if kind == "ping":
        ack = {"type": "pong"}
    if kind == "cancel":
        town.cancelled.add(message["request"])
    if kind == "live":
        target = {"completion_id": message["completion_id"], "choice": message["choice"]}
        given = {name: message[name] for name in ("value", "token_index", "reaction_ms")}
        event = town.judge(user["id"], {"kind": "live", "target": target} | given)
        ack |= {"seq": event["seq"]}
    await tab.send(json.dumps(ack))
    if kind == "resume":
        await tab.replay(message["last"])
    if kind == "generate":
        task = asyncio.create_task(stream(town, tab, message))
        town.tasks_running.add(task)
        task.add_done_callback(town.tasks_running.discard)


async def stream(town: Town, tab: Tab, message: dict[str, Any]) -> None:
    request, count, blind = message["request"], message["settings"]["choices"], message["blind"]
    question = message["messages"][-1]["content"] if "messages" in message else message["prompt"]
    conversation = None if blind else town.conversations.get(message["conversation_id"] or "")
    if conversation:
        town.add_question(conversation, question)
    about: dict[str, Any] = {"request": request}
    name = uuid.uuid4().hex[:12]
    started = {"type": "started", "completion_id": name, "choices": count, "weight_version": None if blind else "v3"}
    await tab.say(started | about | {"conversation_id": None if blind else message["conversation_id"]})
    made = [town.new_completion(name, choice, question, town.answer(question)) for choice in range(count)]
    for at in range(max(len(one["tokens"]) for one in made)):
        await asyncio.sleep(0.02 if "payload" not in question else 0)
        if request in town.cancelled:
            break
        for choice, one in enumerate(made):
            for token in one["tokens"][at : at + 1]:
                shown = {"text": token["text"]} if blind else token
                await tab.say({"type": "tokens", "choice": choice, "tokens": [shown]} | about)
    reason = "cancelled" if request in town.cancelled else "stop"
    for choice, one in enumerate(made):
        one["finish_reason"] = reason
        if conversation and not choice:
            town.add_turn(conversation, one)
        await tab.say({"type": "finished", "choice": choice, "finish_reason": reason, "usage": {}} | about)
