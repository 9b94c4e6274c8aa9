"""kill -9 of the engine while clients listen: python benchmarks/engine_crash.py [--quick] [--json FILE]

The real engine with the built-in model, started again after each kill. Every answer that was being spoken must end in a
clean error event; how long after the kill, is measured, and how long until an answer is whole again.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

from harness import Figure, parse_options, report, spread

sys.path.insert(
    0, str(Path(__file__).parent.parent / "tests")
)  # whose `serving` is meant, not the benchmark of that name

LONGEST_S = 30.0  # without a byte: a client that hangs


@dataclass
class Heard:
    """What the clients saw."""

    killed_at: float = 0.0
    errors_s: list[float] = field(default_factory=list)  # from the kill to the error event
    whole_at: float = 0.0  # when an answer was last heard to its end
    whole: int = 0
    unclean: int = 0  # cut off without a word, or never answered
    over: bool = False


def main() -> None:
    from gateway_under_fire import running

    options = parse_options(__doc__)
    kills, clients = (5, 10) if options.quick else (50, 20)
    with tempfile.TemporaryDirectory(prefix="rl-") as name:
        folder = Path(name)
        with running(folder / "data", folder / "e.sock") as (gateway, key):
            heard, back_s = asyncio.run(under_fire(gateway.base, key, folder / "e.sock", kills, clients))
    figures = [
        Figure("answers heard to the end", heard.whole, heard.whole, heard.whole),
        Figure("answers cut off by a kill", *[len(heard.errors_s)] * 3),
        Figure("cut off without an error event, or hanging", *[heard.unclean] * 3, 0, "lower"),
        Figure("error event after the kill, s, p95", *[percentile(heard.errors_s, 0.95)] * 3),
        Figure("error event after the kill, s, longest", *[max(heard.errors_s)] * 3, 2.0, "lower"),
        spread("answers again after the kill, s", back_s),
    ]
    report("Kills of the engine under load", figures, options, {"kills": kills, "clients": clients})


async def under_fire(base: str, key: str, socket: Path, kills: int, clients: int) -> tuple[Heard, list[float]]:
    heard, rng, back_s = Heard(), random.Random(0), []
    engine = start(socket)
    try:
        async with httpx2.AsyncClient(
            base_url=base, headers={"authorization": f"Bearer {key}"}, timeout=LONGEST_S
        ) as http:
            listeners = [asyncio.create_task(listen(http, heard)) for _ in range(clients)]
            await whole_again(heard, 0.0)
            for _ in range(kills):
                await asyncio.sleep(rng.uniform(0.2, 0.8))
                engine.send_signal(signal.SIGKILL)
                heard.killed_at = time.monotonic()
                engine.wait()
                engine = start(socket)
                back_s.append(await whole_again(heard, heard.killed_at))
            heard.over = True
            await asyncio.gather(*listeners)
    finally:
        engine.kill()
        engine.wait()
    return heard, back_s


async def whole_again(heard: Heard, since: float) -> float:
    """Seconds from the kill to the end of an answer that came whole from the new engine."""
    await asyncio.sleep(0.1)  # what was on its way already does not count
    began = time.monotonic()
    while heard.whole_at < began:
        assert time.monotonic() - began < 120, "the engine did not come back"
        await asyncio.sleep(0.01)
    return heard.whole_at - (since or began)


async def listen(http: httpx2.AsyncClient, heard: Heard) -> None:
    asked: dict[str, Any] = {"model": "builtin", "stream": True, "max_tokens": 200, "logit_bias": {"0": -100}}
    asked["messages"] = [{"role": "user", "content": "What does the bun cost?"}]
    while not heard.over:
        try:
            async with http.stream("POST", "/v1/chat/completions", json=asked) as reply:
                if reply.status_code != 200:  # the engine is away, which is said at once
                    await asyncio.sleep(0.05)
                    continue
                async with aclosing(events(reply)) as said:
                    last = ""
                    async for event in said:
                        last = event
                        if "error" in event and "error" in json.loads(event):
                            heard.errors_s.append(time.monotonic() - heard.killed_at)
            if last == "[DONE]":
                heard.whole, heard.whole_at = heard.whole + 1, time.monotonic()
            elif "error" not in last:
                heard.unclean += 1
        except httpx2.TransportError:
            heard.unclean += 1


async def events(reply: httpx2.Response) -> AsyncIterator[str]:
    async for line in reply.aiter_lines():
        if line.startswith("data: "):
            yield line[6:]


def start(socket: Path) -> subprocess.Popen[bytes]:
    from rewardloop.sandbox.builtin import builtin_model_folder

    command = [sys.executable, "-m", "rewardloop.loop.processes.engine_server", "--model", str(builtin_model_folder())]
    command += ["--name", "builtin", "--socket", str(socket)]
    environment = os.environ | {"OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(int(share * len(values)), len(values) - 1)]


if __name__ == "__main__":
    main()
