"""How much the gateway takes, and how fast: python benchmarks/serving.py [--quick] [--json FILE]

A gateway in a process of its own on a fresh data directory (SQLite, every acknowledgment on the disk), with a stub in
place of the engine except where its name says otherwise. Measured from outside, over HTTP:

    ingest     100 clients, each sending its next judgment when the last one is acknowledged
    people     200 people who judge once a second
    streams    200 answers of 20 tokens a second at the same time: how late each token is, none lost or out of order
    overhead   one stream of the real engine: time per token through the gateway less that at the engine itself
    first      time to the first token of the built-in model, idle
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from harness import Figure, parse_options, report
from rewardloop.loop.manifests import WEIGHTS

CLIENTS, PEOPLE, STREAMS = 100, 200, 200
TOKENS_PER_S = 20
HOST = "127.0.0.1"


def main() -> None:
    options = parse_options(__doc__)
    seconds = 4 if options.quick else 20
    figures: list[Figure] = []
    with running_gateway("stub") as place:
        figures += asyncio.run(ingest(place, seconds))
        figures += asyncio.run(people(place, seconds))
        figures += asyncio.run(streams(place, seconds))
    with running_gateway("engine") as place:
        figures += asyncio.run(overhead(place, 4 if options.quick else 20))
    report("Serving", figures, options, {"seconds": seconds, "clients": CLIENTS, "people": PEOPLE, "streams": STREAMS})


# ---------------------------------------------------------------- what is measured


async def ingest(place: Place, seconds: float) -> list[Figure]:
    answer = await one_answer(place)
    waits: list[float] = []
    end = time.perf_counter() + seconds

    async def client(number: int) -> None:
        async with connection(place) as talk:
            at = 0
            while time.perf_counter() < end:
                began = time.perf_counter()
                status, _ = await talk.post("/v1/feedback", thumb(answer, at), key=f"c{number}-{at}")
                assert status == 201, status
                waits.append(time.perf_counter() - began)
                at += 1

    began = time.perf_counter()
    await asyncio.gather(*(client(number) for number in range(CLIENTS)))
    took = time.perf_counter() - began
    return [
        single("ingest: events/s", len(waits) / took, target=1000),
        *milliseconds("ingest", waits, p95=60.0),
    ]


async def people(place: Place, seconds: float) -> list[Figure]:
    answer = await one_answer(place)
    waits: list[float] = []

    async def person(number: int) -> None:
        async with connection(place) as talk:
            await asyncio.sleep(number / PEOPLE)
            for at in range(int(seconds)):
                began = time.perf_counter()
                status, _ = await talk.post("/v1/feedback", thumb(answer, at), key=f"p{number}-{at}")
                assert status == 201, status
                waits.append(time.perf_counter() - began)
                await asyncio.sleep(max(0.0, 1 - (time.perf_counter() - began)))

    await asyncio.gather(*(person(number) for number in range(PEOPLE)))
    return milliseconds("200 people", waits, p95=30.0)


async def streams(place: Place, seconds: float) -> list[Figure]:
    """The stub writes the time at which it sent each token into its text."""
    late: list[float] = []
    lost = 0
    wanted = int(TOKENS_PER_S * seconds)

    async def listener(number: int) -> None:
        nonlocal lost
        async with connection(place) as talk:
            await asyncio.sleep(number / STREAMS)
            seen = []
            async for text in talk.stream(chat(place, max_tokens=wanted)):
                for at, sent in re.findall(r"(\d+)@([\d.]+) ", text):
                    seen.append(int(at))
                    late.append(time.time() - float(sent))
            lost += seen != list(range(wanted))

    await asyncio.gather(*(listener(number) for number in range(STREAMS)))
    return [
        *milliseconds("200 streams, delivery", late, p95=25.0),
        single("200 streams: with tokens lost or out of order", lost, target=0, better="lower"),
    ]


async def overhead(place: Place, rounds: int) -> list[Figure]:
    direct: list[float] = []
    through: list[float] = []
    first: list[float] = []
    for seed in range(rounds):
        asked = {**chat(place, max_tokens=48), "seed": seed, "logit_bias": {"0": -100}}
        async with connection(place) as talk:
            gaps, wait = await gaps_of(talk.stream(asked))
        through += gaps
        first.append(wait)
        async with connection(place, engine=True) as talk:
            gaps, _ = await gaps_of(talk.stream(asked))
        direct += gaps
    extra = 1000 * (percentile(through, 0.95) - percentile(direct, 0.95))
    return [
        single("gateway overhead, ms per token at p95", extra, target=3.0, better="lower"),
        single("time per token at the engine, ms, median", 1000 * statistics.median(direct)),
        single("time per token through the gateway, ms, median", 1000 * statistics.median(through)),
        single("time to first token, built-in model, ms, median", 1000 * statistics.median(first), 150.0, "lower"),
        single("time to first token, built-in model, ms, p95", 1000 * percentile(first, 0.95)),
    ]


async def gaps_of(texts: AsyncIterator[str]) -> tuple[list[float], float]:
    """Seconds between tokens, and to the first one."""
    began = time.perf_counter()
    times = [time.perf_counter() async for text in texts if text]
    return [after - before for before, after in pairwise(times)], times[0] - began


# ---------------------------------------------------------------- a client that costs little


class RefusedError(RuntimeError):
    """No stream began; status and body."""


class Talk:
    """HTTP/1.1 on one kept connection; nothing but what these measurements need."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, headers: str) -> None:
        self._reader, self._writer, self._headers = reader, writer, headers

    async def post(self, path: str, body: Any, key: str | None = None) -> tuple[int, bytes]:
        self._send(path, body, key)
        status, headers = await self._head()
        return status, await self._reader.readexactly(int(headers[b"content-length"]))

    async def stream(self, body: Any) -> AsyncIterator[str]:
        """The text of each event of a streamed chat."""
        async for event in self.events(body):
            for choice in event["choices"]:
                yield choice["delta"].get("content") or ""

    async def events(self, body: Any) -> AsyncIterator[dict[str, Any]]:
        """The events of a streamed chat. Raises RefusedError."""
        self._send("/v1/chat/completions", {**body, "stream": True}, None)
        status, headers = await self._head()
        if status != 200:
            raise RefusedError(status, await self._reader.readexactly(int(headers[b"content-length"])))
        rest = b""
        while size := int(await self._reader.readline(), 16):
            rest += await self._reader.readexactly(size)
            await self._reader.readexactly(2)
            *events, rest = rest.split(b"\n\n")
            for event in events:
                if event != b"data: [DONE]":
                    yield json.loads(event[6:])
        await self._reader.readline()

    def _send(self, path: str, body: Any, key: str | None) -> None:
        data = json.dumps(body).encode()
        extra = f"idempotency-key: {key}\r\n" if key else ""
        head = f"POST {path} HTTP/1.1\r\nhost: {HOST}\r\n{self._headers}{extra}content-length: {len(data)}\r\n\r\n"
        self._writer.write(head.encode() + data)

    async def _head(self) -> tuple[int, dict[bytes, bytes]]:
        status = int((await self._reader.readline()).split()[1])
        headers = {}
        while (line := await self._reader.readline()) != b"\r\n":
            name, _, value = line.partition(b":")
            headers[name.lower()] = value.strip()
        return status, headers


@dataclass(frozen=True)
class Place:
    """A running gateway."""

    port: int
    keys: tuple[str, ...]  # one for each client that has limits of its own
    model: str
    engine: Path
    data: Path
    operator: str  # the secret that may steer what is served
    process: int = 0  # of the gateway
    up_s: float = 0.0  # from its start until it was ready

    @property
    def key(self) -> str:
        return self.keys[0]


class connection:  # noqa: N801 - reads as what it is
    """A connection to the gateway, or to the engine itself."""

    def __init__(self, place: Place, *, engine: bool = False, secret: str | None = None) -> None:
        """`secret`: whose it is; that of the place's first key where nothing is said."""
        self._place, self._engine, self._secret = place, engine, secret or place.key

    async def __aenter__(self) -> Talk:
        place = self._place
        if self._engine:
            reader, self._writer = await asyncio.open_unix_connection(str(place.engine))
        else:
            reader, self._writer = await asyncio.open_connection(HOST, place.port)
        headers = f"authorization: Bearer {self._secret}\r\ncontent-type: application/json\r\n"
        return Talk(reader, self._writer, headers)

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()


def thumb(answer: str, at: int) -> dict[str, Any]:
    return {"kind": "rating", "target": {"completion_id": answer}, "value": at % 2, "scale": {"low": 0, "high": 1}}


def chat(place: Place, **extra: Any) -> dict[str, Any]:
    return {"model": place.model, "messages": [{"role": "user", "content": "What does the bun cost?"}], **extra}


async def one_answer(place: Place) -> str:
    async with connection(place) as talk:
        status, body = await talk.post("/v1/chat/completions", chat(place, max_tokens=4))
    assert status == 200, body
    return str(json.loads(body)["id"])


# ---------------------------------------------------------------- processes


@contextmanager
def running_gateway(kind: str, keys: int = 1, fill: Callable[[Path], None] = lambda folder: None) -> Iterator[Place]:
    """A gateway with so many API keys, and below it the stub or the real engine, each in a process of its own.

    `fill` writes into its data directory before anything starts.
    """
    import httpx2

    with tempfile.TemporaryDirectory(prefix="rl-") as name:
        folder = Path(name)
        fill(folder)
        began = time.perf_counter()
        socket, port, token, operator = folder / "e.sock", free_port(), "a token for set-up", secrets.token_urlsafe(32)
        environment = os.environ | {"OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": "1"}
        stub = ["-m", "contenders.stub_engine", str(socket)]
        real = ["-m", "rewardloop.loop.processes.engine_server", "--model", builtin(), "--name", "builtin"]
        below = stub if kind == "stub" else [*real, "--socket", str(socket), "--weights", str(folder / WEIGHTS)]
        above = ["-m", "rewardloop.serve", "--data", name, "--engine-socket", str(socket), "--port", str(port)]
        above_has = {"REWARDLOOP_SETUP_TOKEN": token, "REWARDLOOP_OPERATOR_TOKEN": operator}
        here = Path(__file__).parent
        with (
            subprocess.Popen([sys.executable, *below], cwd=here, env=environment) as engine,
            open(folder / "log", "wb") as log,
            subprocess.Popen([sys.executable, *above], env=environment | above_has, stdout=log) as gateway,
        ):
            try:
                with httpx2.Client(base_url=f"http://{HOST}:{port}", timeout=20) as client:
                    wait_until_ready(client)
                    up_s = time.perf_counter() - began
                    client.post("/api/setup", json={"token": token, "name": "Bench", "password": "benchmark"})
                    given = {"name": "bench", "scopes": ["infer", "feedback", "read"]}
                    made = tuple(client.post("/api/keys", json=given).json()["key"] for _ in range(keys))
                    model = client.get("/v1/models").json()["data"][0]["id"]
                yield Place(port, made, model, socket, folder, operator, gateway.pid, up_s)
            finally:
                gateway.terminate()
                engine.terminate()


def wait_until_ready(client: Any) -> None:
    import httpx2

    end = time.monotonic() + 120
    while time.monotonic() < end:
        try:
            if client.get("/readyz").status_code == 200:
                return
        except httpx2.TransportError:
            pass
        time.sleep(0.05)
    raise SystemExit("the gateway did not get ready")


def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def builtin() -> str:
    from rewardloop.sandbox.builtin import builtin_model_folder

    return str(builtin_model_folder())


# ---------------------------------------------------------------- figures


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(int(share * len(values)), len(values) - 1)]


def single(name: str, value: float, target: float | None = None, better: Any = "higher") -> Figure:
    return Figure(name, value, value, value, target, better)


def milliseconds(name: str, seconds: list[float], p95: float) -> list[Figure]:
    values = [1000 * each for each in seconds]
    return [
        single(f"{name}: p50, ms", percentile(values, 0.5)),
        single(f"{name}: p95, ms", percentile(values, 0.95), p95, "lower"),
        single(f"{name}: p99, ms", percentile(values, 0.99)),
    ]


if __name__ == "__main__":
    main()
