"""Simulated people as clients of a running place: they ask by HTTP, judge the answers, and see what comes of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import httpx2
import numpy as np

from rewardloop.errors import StoreError
from rewardloop.loop.people import MIXED
from rewardloop.loop.seeds import derive_rng
from rewardloop.sandbox.annotators import SimulatedAnnotator
from rewardloop.types import Message, Prompt

POLL_S: Final = 0.25
MOST_TOKENS: Final = 64
TRIES: Final = 40  # of a request, a quarter of a second apart: a part that was killed comes back
KEY_SCOPES: Final = ("infer", "feedback", "read")


@dataclass(slots=True)
class Given:
    """One judgment on its way."""

    seq: int
    at: float  # monotonic seconds, when it was acknowledged
    learned_s: float | None = None  # from then until a version that has learned from it was published
    live_s: float | None = None  # and until one was served
    version: int | None = None  # which


@dataclass
class Crowd:
    """People who take turns; `given` grows while they speak."""

    url: str
    key: str
    people: Sequence[SimulatedAnnotator]
    prompts: Sequence[Prompt]
    seed: int
    tries: int = TRIES
    given: list[Given] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _name: str | None = None  # of the model

    def speak(self, events: int, per_second: float, going_on: Callable[[], bool]) -> None:
        """`events` judgments, at most `per_second`, by as many clients as there are people."""
        turns = iter(range(events))
        began = time.monotonic()

        def take() -> int | None:
            with self._lock:
                return next(turns, None)

        def run() -> None:
            with self._client() as client:
                while going_on() and (turn := take()) is not None:
                    time.sleep(max(0.0, began + turn / per_second - time.monotonic()))
                    self._judge(client, turn)

        threads = [threading.Thread(target=run, daemon=True) for _ in self.people]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def follow(self, going_on: Callable[[], bool]) -> None:
        """Note when judgments are learned from and live, until the caller has seen enough."""
        with self._client() as client:
            while going_on():
                self.look(self._ask(client, "GET", "/api/policy"))
                time.sleep(POLL_S)

    def look(self, state: dict[str, Any]) -> None:
        """Take in what GET /api/policy says."""
        now = time.monotonic()
        with self._lock:
            for each in self.given:
                if each.learned_s is None and each.seq <= (state["learned"] or 0):
                    each.learned_s = now - each.at
                if each.live_s is None and each.seq <= (state["live"] or 0):
                    each.live_s, each.version = now - each.at, state["active"]

    def _judge(self, client: httpx2.Client, turn: int) -> None:
        rng = derive_rng(self.seed, "crowd", turn)
        person = self.people[turn % len(self.people)]
        kind = str(rng.choice(list(MIXED), p=list(MIXED.values())))
        prompt = self.prompts[int(rng.integers(len(self.prompts)))]
        asked = {
            "model": self._model(client),
            "messages": _messages(prompt),
            "n": 2 if kind == "preference" else 1,
            "max_tokens": MOST_TOKENS,
            "temperature": 1.0,
            "seed": int(rng.integers(2**31)),
        }
        answer = self._ask(client, "POST", "/v1/chat/completions", asked)
        texts = [choice["message"]["content"] for choice in answer["choices"]]
        body = {**_body(person, kind, prompt, texts, answer["id"]), "annotator": {"external_id": person.name}}
        key = {"idempotency-key": f"crowd-{self.seed}-{turn}"}
        stored = self._ask(client, "POST", "/v1/feedback", body, key)
        with self._lock:
            self.given.append(Given(int(stored["seq"]), time.monotonic()))

    def _model(self, client: httpx2.Client) -> str:
        if self._name is None:
            self._name = str(self._ask(client, "GET", "/v1/models")["data"][0]["id"])
        return self._name

    def _ask(
        self,
        client: httpx2.Client,
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
    ) -> dict[str, Any]:
        return _ask(client, method, path, body, headers, self.tries)

    def _client(self) -> httpx2.Client:
        return httpx2.Client(base_url=self.url, headers={"authorization": f"Bearer {self.key}"}, timeout=60)


def move_in(url: str, token: str, password: str | None = None) -> str:
    """Set a new place up by its one-time token (the password, too, if none is given); an API key for a crowd."""
    with httpx2.Client(base_url=url, timeout=60) as client:
        _ask(client, "POST", "/api/setup", {"token": token, "name": "Simulation", "password": password or token})
        key = _ask(client, "POST", "/api/keys", {"name": "crowd", "scopes": list(KEY_SCOPES)})
    return str(key["key"])


def _ask(
    client: httpx2.Client,
    method: str,
    path: str,
    body: dict[str, Any] | None = None,
    headers: dict[str, str] | None = None,
    tries: int = TRIES,
) -> dict[str, Any]:
    """The answer, however often it takes. Raises StoreError where it is refused, or nobody answers for long."""
    problem = "no answer"
    for _ in range(tries):
        try:
            reply = client.request(method, path, json=body, headers=headers)
        except httpx2.HTTPError as error:
            problem = str(error)
        else:
            if reply.status_code < 300:
                return dict(reply.json())
            problem = f"{reply.status_code} {reply.text[:200]}"
            if reply.status_code not in (429, 500, 502, 503, 507):
                break
        time.sleep(POLL_S)
    raise StoreError(f"{method} {path}: {problem}")


def _body(
    person: SimulatedAnnotator, kind: str, prompt: Prompt, texts: Sequence[str], completion: str
) -> dict[str, Any]:
    """What the person says of the answers, as POST /v1/feedback takes it."""
    target = {"completion_id": completion, "choice": 0}
    if kind == "preference" and texts[0] != texts[1]:
        choice = person.prefer(prompt, texts[0], texts[1]).choice
        return {"kind": kind, "targets": [target, {**target, "choice": 1}], "choice": choice}
    if kind == "edit":
        return {"kind": kind, "target": target, "corrected": person.edit(prompt, texts[0]).corrected}
    rating = person.thumb(prompt, texts[0]) if kind == "thumb" else person.rate(prompt, texts[0])
    scale = {"low": rating.scale.low, "high": rating.scale.high}
    return {"kind": "rating", "target": target, "value": rating.value, "scale": scale}


def _messages(prompt: Prompt) -> list[dict[str, str]]:
    if isinstance(prompt, str):
        return [{"role": "user", "content": prompt}]
    return [{"role": turn.role, "content": turn.content} for turn in prompt if isinstance(turn, Message)]


def median(values: Sequence[float | None]) -> float | None:
    """Of those that are known."""
    known = [value for value in values if value is not None]
    return float(np.median(known)) if known else None
