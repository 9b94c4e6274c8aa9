"""A gateway that is killed at random moments while many clients send judgments, and what is left afterwards.

Used by the tests (a few kills) and by benchmarks/gateway_crash.py (fifty).
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

HOST = "127.0.0.1"
TOKEN = "the secret of the set-up link"  # noqa: S105


@dataclass
class Fire:
    """What the clients saw."""

    acknowledged: dict[str, str] = field(default_factory=dict)  # idempotency key -> id of the feedback
    changed: list[str] = field(default_factory=list)  # keys that were answered with another id later
    up_again_s: list[float] = field(default_factory=list)


class Gateway:
    """A gateway as a process that can be killed and started again on the same data."""

    def __init__(self, data: Path, engine_socket: Path) -> None:
        self.data, self.engine_socket = data, engine_socket
        with socket.socket() as probe:
            probe.bind((HOST, 0))
            self.port = int(probe.getsockname()[1])
        self.base = f"http://{HOST}:{self.port}"
        self.process = self._start()

    def kill(self) -> float:
        """End it as a power cut does; seconds until it answers again."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        began = time.monotonic()
        self.process = self._start()
        self.wait_until_up()
        return time.monotonic() - began

    def wait_until_up(self) -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                if httpx2.get(f"{self.base}/healthz").status_code == 200:
                    return
            except httpx2.TransportError:
                time.sleep(0.01)
        raise AssertionError("the gateway did not come back")

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()

    def _start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "rewardloop.serve", "--data", str(self.data)]
        command += ["--engine-socket", str(self.engine_socket), "--port", str(self.port)]
        environment = os.environ | {"REWARDLOOP_SETUP_TOKEN": TOKEN, "OMP_NUM_THREADS": "1"}
        with (self.data / "gateway.log").open("ab") as log:
            return subprocess.Popen(command, env=environment, stdout=log, stderr=log)


@contextmanager
def running(data: Path, engine_socket: Path) -> Iterator[tuple[Gateway, str]]:
    """A gateway with an owner, and an API key."""
    data.mkdir(parents=True, exist_ok=True)
    gateway = Gateway(data, engine_socket)
    try:
        gateway.wait_until_up()
        with httpx2.Client(base_url=gateway.base, timeout=30) as client:
            client.post("/api/setup", json={"token": TOKEN, "name": "Owner", "password": "a long password"})
            key = client.post("/api/keys", json={"name": "fire", "scopes": ["admin"]}).json()["key"]
        yield gateway, key
    finally:
        gateway.stop()


def under_fire(gateway: Gateway, key: str, *, kills: int, clients: int, seed: int) -> Fire:
    """Kill the gateway `kills` times while `clients` send; every client retries until it is answered."""
    fire, rng, over = Fire(), random.Random(seed), [False]

    async def client(number: int) -> None:
        headers = {"authorization": f"Bearer {key}"}
        async with httpx2.AsyncClient(base_url=gateway.base, headers=headers, timeout=10) as http:
            at = 0
            while not over[0]:
                await send(http, fire, f"{number}-{at}")
                if at % 7 == 3:  # a client that does not trust the answer asks again
                    await send(http, fire, f"{number}-{at}")
                at += 1

    async def run() -> None:
        tasks = [asyncio.create_task(client(number)) for number in range(clients)]
        for _ in range(kills):
            await asyncio.sleep(rng.uniform(0.05, 0.8))
            fire.up_again_s.append(await asyncio.to_thread(gateway.kill))
        await asyncio.sleep(0.3)
        over[0] = True
        await asyncio.gather(*tasks)

    asyncio.run(run())
    return fire


async def send(http: httpx2.AsyncClient, fire: Fire, name: str) -> None:
    """Send one judgment until it is acknowledged."""
    body: dict[str, Any] = {"kind": "comment", "text": name, "target": {"external_id": "x"}}
    while True:
        try:
            reply = await http.post("/v1/feedback", json=body, headers={"idempotency-key": name})
        except httpx2.TransportError:
            await asyncio.sleep(0.01)
            continue
        if reply.status_code in (200, 201):
            found = reply.json()["id"]
            if fire.acknowledged.setdefault(name, found) != found:
                fire.changed.append(name)
            return
        await asyncio.sleep(0.01)


def stored(gateway: Gateway, key: str) -> Counter[str]:
    """How often each judgment is in the log, as the gateway tells it."""
    found: Counter[str] = Counter()
    headers = {"authorization": f"Bearer {key}"}
    with httpx2.Client(base_url=gateway.base, headers=headers, timeout=30) as client:
        after: int | None = 0
        while after is not None:
            page = client.get("/v1/feedback", params={"after": after, "limit": 1000}).json()
            found.update(item["body"]["text"] for item in page["items"])
            after = page["next"]
    return found
