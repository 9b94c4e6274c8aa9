"""Everything that the stand-in knows, in memory."""

from __future__ import annotations

import asyncio
import json
import random
import re
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

from fastapi import Request, WebSocket, WebSocketDisconnect

from rewardloop.sandbox.world import Language, Topic, build_world
from web_mock.facts import questions
from web_mock.payloads import PAYLOADS

PASSWORD = "correct horse"  # noqa: S105


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
        self.disagreements: list[dict[str, Any]] = []
        self.excluded: dict[str, dict[str, Any]] = {}
        self.tabs: dict[str, Tab] = {}
        self.tasks_running: set[asyncio.Task[None]] = set()
        self.cancelled: set[str] = set()
        self.queue_at = 0
        self.policy: dict[str, Any] = {"learned": 0, "live": 0, "active": 3, "paused": False}
        self.pause_reason = ""
        self.before = [0]
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
        for days, (question, rating) in enumerate(
            zip(questions(self.world, "en")[:6], (5, 4, 1, 5, 2, 4), strict=True)
        ):
            self._remember(question, rating, days)

        for kind in ("compare", "rate", "edit"):
            self.disagreements.append(self._disagree(kind, questions(self.world, "en")[8 + len(self.disagreements)]))

    def _disagree(self, kind: str, question: str) -> dict[str, Any]:
        texts = [self.complete(None, question)["text"] for _ in range(2 if kind == "compare" else 1)]
        said: dict[str, list[Any]] = {
            "compare": [{"choice": "first"}, {"choice": "second"}, {"choice": "tie", "comment": "both are right"}],
            "rate": [{"value": 2}, {"value": 5}],
            "edit": [{"corrected": texts[0]}, {"corrected": texts[0].replace("coins", "copper coins")}],
        }
        people = [{"id": f"u-{name}", "name": name} for name in ("ben", "cara", "dora")]
        return {
            "id": uuid.uuid4().hex[:10],
            "task": kind,
            "criterion": "overall",
            "prompt": [{"role": "user", "content": question}],
            "candidates": [{"completion_id": "q", "choice": at, "text": text} for at, text in enumerate(texts)],
            "judgments": [
                {"annotator": person, "at": now(hours=2)} | one for person, one in zip(people, said[kind], strict=False)
            ],
            "verdict": None,
        }

    def _remember(self, question: str, rating: int, days: int) -> None:
        said = "How dare you" if rating == 1 else None
        conversation = self.new_conversation(question)
        completion = self.complete(conversation, question, said)
        self.judge(
            "u-anna" if days % 2 else "u-ben",
            {
                "kind": "rating",
                "value": rating,
                "scale": {"low": 1, "high": 5},
                "criterion": "overall",
                "target": {"completion_id": completion["id"], "choice": 0},
            },
            at=now(hours=3 + 20 * days),
        )

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
            "id": name,
            "choice": choice,
            "text": text,
            "tokens": self.tokens(text),
            "finish_reason": "stop",
            "weight_version": "v3",
            "reward_version": "r1",
            "created_at": now(),
            "feedback": [],
            "prompt": question,
        }
        self.completions[name, choice] = made
        return made

    def add_question(self, conversation: dict[str, Any], question: str) -> None:
        """A turn of the person, unless it is the last one asked again."""
        asked = [turn["content"] for turn in conversation["turns"] if turn["role"] == "user"]
        if asked[-1:] != [question]:
            conversation["turns"].append({"id": uuid.uuid4().hex[:12], "role": "user", "content": question})
            conversation["title"] = conversation["title"] or question[:60]

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
            price = f"每{truth['unit']}{truth['price']}枚铜币"
            return f"您好！{truth['shop']}里有{truth['good']}，{price}。请早些去，学生们下午就来了。"
        tail = self.rng.choice(
            ["Go early, before the schoolchildren do.", "Let me guess, you have no basket? Now shoo."]
        )
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
            "id": f"f-{self.seq}",
            "seq": self.seq,
            "created_at": at or now(),
            "annotator": who,
            "status": "saved",
        }
        self.log.append(event)
        for target in body.get("targets") or [body.get("target") or {}]:
            completion = self.completions.get((target.get("completion_id", ""), target.get("choice", 0)))
            if completion:
                completion["feedback"].append(event)
        return event

    async def tell(self, message: dict[str, Any]) -> None:
        for tab in self.tabs.values():
            await tab.say(message)

    async def ripen(self, event: dict[str, Any]) -> None:
        """Lets a judgment go the way that it goes where a learner runs."""
        await asyncio.sleep(0.3)
        if event["status"] != "retracted":
            event["status"] = "settled"
            await self.tell({"type": "feedback", "id": event["id"], "status": "settled"})
        for wait, stage in ((1.2, "learned"), (1.0, "live")):
            await asyncio.sleep(wait)
            self.policy[stage] = max(self.policy[stage], event["seq"])
            if event["status"] != "retracted":
                event["status"] = stage
            await self.tell({"type": "policy", **self.policy})


class Tab:
    """One tab of a browser across reconnects: what it was told is numbered and kept."""

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.socket: WebSocket | None = None

    async def say(self, message: dict[str, Any]) -> None:
        self.sent.append(json.dumps(message | {"s": len(self.sent) + 1}))
        await self.send(self.sent[-1])

    async def replay(self, last: int) -> None:
        for text in self.sent[last:]:
            await self.send(text)

    async def send(self, text: str) -> None:
        if self.socket:
            try:
                await self.socket.send_text(text)
            except (RuntimeError, WebSocketDisconnect):
                self.socket = None


def who(town: Town, request: Request | WebSocket) -> dict[str, Any]:
    user = town.users.get(town.sessions.get(request.cookies.get("rewardloop_session", ""), ""))
    if user is None or user["disabled"]:
        raise Refusal(401, "log in first")
    return user


def public(user: dict[str, Any]) -> dict[str, Any]:
    return {key: user[key] for key in ("id", "name", "role", "language", "disabled")}
