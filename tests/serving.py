"""A gateway as people meet it: a real server on a real port, with a stub in place of the engine."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from rewardloop.feedback.log.database import data_url
from rewardloop.feedback.log.event_log import EventLog
from rewardloop.serve.app import make_app
from rewardloop.serve.edge.access import Role, Scope
from rewardloop.serve.edge.http import LimitedHttp
from rewardloop.serve.engine.client import EngineClient
from rewardloop.serve.gateway import Gateway

SETUP = "the secret of the set-up link"
PASSWORD = "correct horse battery"  # noqa: S105
OPERATORS = {"learner": "the secret of the learner", "operator": "the secret of the command line"}
MODEL = "town"


@dataclass
class StubEngine:
    """Says the words of `text`, one token each; remembers what it was asked and what was cut off."""

    text: str = "The bun costs two coins."
    pause_s: float = 0.0
    fail_after: int | None = None  # tokens after which the stream breaks off
    refuse: tuple[int, str] | None = None
    asked: list[dict[str, Any]] = field(default_factory=list)
    cut_off: int = 0
    version: int = 3
    unfit: set[int] = field(default_factory=set)  # versions that it will not serve

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/health", self._health),
                Route("/v1/models", self._models),
                Route("/v1/completions", self._say, methods=["POST"]),
                Route("/v1/chat/completions", self._say, methods=["POST"]),
                Route("/weights", self._weights, methods=["POST"]),
            ]
        )

    async def _health(self, _: Request) -> Response:
        return Response()

    async def _models(self, _: Request) -> Response:
        model = {
            "id": MODEL,
            "max_model_len": 512,
            "weight_version": self.version,
            "chat": True,
            "reward_version": "phi-1",
        }
        return JSONResponse({"object": "list", "data": [model]})

    async def _weights(self, http: Request) -> Response:
        path = (await http.json())["manifest"]
        version = 0 if path is None else json.loads(Path(path).read_text())["version"]
        if version in self.unfit:
            return JSONResponse({"error": {"message": f"version {version} is damaged"}}, 400)
        self.version = version
        return JSONResponse({"version": version})

    async def _say(self, http: Request) -> Response:
        asked = await http.json()
        self.asked.append(asked)
        if self.refuse is not None:
            status, message = self.refuse
            return JSONResponse({"error": {"message": message}}, status)
        return StreamingResponse(self._events(asked), media_type="text/event-stream")

    def words(self, asked: dict[str, Any]) -> list[str]:
        """The tokens of the answer."""
        return [word if at == 0 else f" {word}" for at, word in enumerate(self.text.split())]

    async def _events(self, asked: dict[str, Any]) -> AsyncIterator[bytes]:
        words = self.words(asked)
        ended = False
        try:
            yield _sse({"choices": [], "prompt_token_ids": [1, 2, 3], "reward_version": "phi-1"})
            for at, word in enumerate(words[: asked["max_tokens"]]):
                if at == self.fail_after:
                    return
                last = at == min(len(words), asked["max_tokens"]) - 1
                reason = ("stop" if len(words) <= asked["max_tokens"] else "length") if last else None
                yield _sse({"choices": [_choice(asked, n, at, word, reason) for n in range(asked.get("n", 1))]})
                await asyncio.sleep(self.pause_s)
            used = {"prompt_tokens": 3, "completion_tokens": len(words), "total_tokens": 3 + len(words)}
            yield _sse({"choices": [], "usage": used})
            yield b"data: [DONE]\n\n"
            ended = True
        finally:
            self.cut_off += not ended


def _choice(asked: dict[str, Any], index: int, at: int, word: str, reason: str | None) -> dict[str, Any]:
    said = {"delta": {"content": word}} if "messages" in asked else {"text": word}
    entry = {"token": word, "logprob": -0.5, "bytes": list(word.encode()), "top_logprobs": []}
    return {
        "index": index,
        **said,
        "finish_reason": reason,
        "token_ids": [10 + at],
        "logprobs": {"content": [entry]},
        "weight_versions": [3],
        "token_rewards": [0.25] if asked.get("rewards") else [],
    }


def _sse(document: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(document)}\n\n".encode()


@contextmanager
def served(app: Any, **where: Any) -> Iterator[None]:
    """`app` by uvicorn in a thread, until the context ends."""
    config = uvicorn.Config(app, log_level="warning", access_log=False, ws_max_size=1 << 20, **where)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 20
    while not server.started:
        assert thread.is_alive(), "the server did not start"
        assert time.monotonic() < deadline, "the server did not start"
        time.sleep(0.01)
    try:
        yield
    finally:
        server.should_exit = True
        thread.join(timeout=20)
        assert not thread.is_alive()


@dataclass
class Place:
    """A running gateway, and ways to talk to it as somebody."""

    base: str
    data: Path
    engine: StubEngine
    gateway: Gateway
    _people: dict[Role, httpx2.Client] = field(default_factory=dict)
    _clients: list[httpx2.Client] = field(default_factory=list)

    def nobody(self, **headers: str) -> httpx2.Client:
        client = httpx2.Client(base_url=self.base, timeout=20, headers=headers)
        self._clients.append(client)
        return client

    def person(self, role: Role) -> httpx2.Client:
        """Somebody of this role, signed in."""
        if role not in self._people:
            client = self.nobody()
            given = {"name": f"the {role}", "password": PASSWORD}
            if role is Role.OWNER:
                reply = client.post("/api/setup", json={"token": SETUP, **given})
            else:
                link = self.person(Role.OWNER).post("/api/invitations", json={"role": role}).json()["link"]
                reply = client.post("/api/join", json={"token": link.partition("#")[2], **given})
            assert reply.status_code == 201, reply.text
            self._people[role] = client
        return self._people[role]

    @property
    def owner(self) -> httpx2.Client:
        return self.person(Role.OWNER)

    def key(self, *scopes: Scope) -> str:
        """A new API key."""
        given = {"name": "a program", "scopes": list(scopes)}
        return str(self.owner.post("/api/keys", json=given).json()["key"])

    def program(self, *scopes: Scope) -> httpx2.Client:
        """A client that holds an API key."""
        return self.nobody(authorization=f"Bearer {self.key(*scopes)}")

    def operator(self, name: str = "learner") -> httpx2.Client:
        """A client that holds the secret of an operator."""
        return self.nobody(authorization=f"Bearer {OPERATORS[name]}")

    def say(self, **extra: Any) -> dict[str, Any]:
        """An answer to be judged."""
        asked = {"model": MODEL, "messages": [{"role": "user", "content": "What does the bun cost?"}], **extra}
        reply = self.owner.post("/v1/chat/completions", json=asked)
        assert reply.status_code == 200, reply.text
        return dict(reply.json())

    def close(self) -> None:
        for client in self._clients:
            client.close()


@contextmanager
def a_place(data: Path, engine: StubEngine | None = None, database: str | None = None) -> Iterator[Place]:
    """A gateway on a fresh data directory (or one that was left before)."""
    engine = engine or StubEngine()
    data.mkdir(parents=True, exist_ok=True)
    path = data / "e.sock"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    gateway = Gateway(
        data=data,
        log=EventLog(database or data_url(data)),
        engine=EngineClient(socket=str(path)),
        model_title="The town",
        has_world=True,
        setup_token=SETUP,
        operators=OPERATORS,
    )
    app = make_app(gateway, hosts={"127.0.0.1", "localhost"})
    with served(engine.app(), uds=str(path)), served(app, host="127.0.0.1", port=port, http=LimitedHttp):
        place = Place(f"http://127.0.0.1:{port}", data, engine, gateway)
        try:
            yield place
        finally:
            place.close()
