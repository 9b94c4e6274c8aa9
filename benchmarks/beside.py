"""Serving beside training: python benchmarks/beside.py [--quick] [--json FILE]

`rewardloop up` with the built-in model; four clients stream answers, and one simulated person judges once a second, so
that the learner, which begins with a backlog, never rests. Calm and busy blocks alternate: in calm ones the learner is
held by SIGSTOP, in busy ones only samples count in which it was computing from beginning to end. At the clients:

    time between tokens       of one stream; tokens that came at once left out
    time to the first token   from the request
"""

from __future__ import annotations

import asyncio
import itertools
import random
import statistics
import sys
import tempfile
import threading
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import httpx2
import psutil

from harness import Figure, parse_options, report, spread
from rewardloop.cli.simulate_live import opened
from rewardloop.loop.live.crowd import Crowd
from rewardloop.sandbox.annotators import SimulatedAnnotator
from rewardloop.sandbox.dialogues import training_prompts
from rewardloop.sandbox.world import build_world
from rewardloop.types import Message, Prompt
from serving import Place, connection, percentile, single

CLIENTS: Final = 4
BACKLOG: Final = 300  # judgments before the first block
MOST_TOKENS: Final = 120
PAUSE_S: Final = 0.2  # a reader's, between two answers
TOGETHER_S: Final = 0.001  # tokens of one stream that come closer than this came at once
LOOK_S: Final = 0.1  # how often the learner is asked what it does
PATIENCE_S: Final = 60.0
SETTLING_S: Final = 0.5  # from a switch to the block that begins with it
COMPUTES: Final = ("refit", "practice", "publish", "compare")


def main() -> None:
    options = parse_options(__doc__)
    rounds, block_s, backlog = (2, 4.0, 24) if options.quick else (20, 5.0, BACKLOG)
    with tempfile.TemporaryDirectory(prefix="rl-") as name:
        data = Path(name) / "data"
        with opened(data, None, 0) as (url, key):
            seen = Seen()
            with speaking(url, key, backlog), watching(url, key, seen):
                asyncio.run(in_turn(place_of(url, key, data), seen, rounds, block_s))
    settings = {"clients": CLIENTS, "rounds": rounds, "block_s": block_s, "backlog": backlog, "phases": seen.phases()}
    doing = ", ".join(f"{phase} {share:.0%}" for phase, share in seen.phases().items())
    report("Serving beside training", figures(seen), options, settings, [f"What the learner computed: {doing}."])


# ---------------------------------------------------------------- what was seen


@dataclass
class Seen:
    """Times by time.perf_counter, seconds."""

    blocks: list[tuple[bool, float, float]] = field(default_factory=list)  # busy, from, until
    looks: list[tuple[float, str]] = field(default_factory=list)  # when the learner was looked at, what it did
    worked: list[float] = field(default_factory=list)  # share of a core that the learner had, of every busy block
    gaps: list[tuple[float, float]] = field(default_factory=list)  # from one token to the next
    firsts: list[tuple[float, float]] = field(default_factory=list)  # from a request to its first token

    def of_block(self, spans: Sequence[tuple[float, float]], block: tuple[bool, float, float]) -> list[float]:
        """How long those took that lie within the block and, if it is a busy one, in computing."""
        busy, begin, end = block
        return [b - a for a, b in spans if a >= begin and b <= end and not (busy and self._rests(a, b))]

    def phases(self) -> dict[str, float]:
        """What the learner did in busy blocks, as shares of the looks."""
        found = Counter(what for at, what in self.looks for busy, a, b in self.blocks if busy and a <= at <= b)
        return {what: count / found.total() for what, count in found.most_common()}

    def _rests(self, begin: float, end: float) -> bool:
        """Whether the learner was seen at rest within this time, or at the looks just before and after it."""
        times = [at for at, _ in self.looks]
        first = max(bisect_right(times, begin) - 1, 0)
        return any(what not in COMPUTES for _, what in self.looks[first : bisect_right(times, end) + 1])


def figures(seen: Seen) -> list[Figure]:
    rows: list[Figure] = []
    for name, spans, most in (("time between tokens", seen.gaps, 1.5), ("time to the first token", seen.firsts, 2.0)):
        calm, busy = (
            [seen.of_block(spans, block) for block in seen.blocks if block[0] == wanted] for wanted in (False, True)
        )
        # A busy block lies between two calm ones: what else goes on falls on both.
        pairs = [(b, [*before, *after]) for b, (before, after) in zip(busy, itertools.pairwise(calm), strict=True)]
        pairs = [(b, c) for b, c in pairs if b and c]
        ratios = [percentile(b, 0.95) / percentile(c, 0.95) for b, c in pairs]
        all_calm, all_busy = (list(itertools.chain(*each)) for each in (calm, busy))
        overall = percentile(all_busy, 0.95) / percentile(all_calm, 0.95)
        rows.append(Figure(f"{name}: p95, busy / calm", overall, min(ratios), max(ratios), most, "lower"))
        for state, samples in (("calm", all_calm), ("busy", all_busy)):
            rows.append(single(f"{name}, {state}: p95, ms", 1000 * percentile(samples, 0.95)))
            rows.append(single(f"{name}, {state}: median, ms", 1000 * statistics.median(samples)))
            rows.append(single(f"{name}, {state}: samples", len(samples)))
    return [*rows, spread("processor that the learner had, of one core", seen.worked)]


# ---------------------------------------------------------------- the place


@contextmanager
def speaking(url: str, key: str, backlog: int) -> Iterator[None]:
    """Somebody judges once a second; before that, several have judged as fast as they could."""
    world = build_world(0)
    people = [SimulatedAnnotator(world, "careful", name=f"person-{at}", seed=at) for at in range(CLIENTS)]
    prompts = training_prompts(world)
    print(f"{backlog} judgments", file=sys.stderr, flush=True)
    Crowd(url, key, people, prompts, 0).speak(backlog, 1000.0, lambda: True)
    slow = Crowd(url, key, people[:1], prompts, 1)
    with in_the_background(lambda over: slow.speak(10**9, 1.0, lambda: not over.is_set())):
        yield


@contextmanager
def watching(url: str, key: str, seen: Seen) -> Iterator[None]:
    """Notes what the learner does."""

    def watch(over: threading.Event) -> None:
        with client_of(url, key) as client:
            while not over.wait(LOOK_S):
                said = client.get("/api/policy").json()["progress"] or {"phase": "starting"}
                seen.looks.append((time.perf_counter(), said["phase"]))

    with in_the_background(watch):
        yield


@contextmanager
def in_the_background(work: Callable[[threading.Event], None]) -> Iterator[None]:
    """`work` runs in a thread until its event says that it is over."""
    over = threading.Event()
    thread = threading.Thread(target=work, args=(over,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(PATIENCE_S)


@contextmanager
def held_still(learner: psutil.Process) -> Iterator[None]:
    learner.suspend()
    try:
        yield
    finally:
        learner.resume()


def find_learner(data: Path) -> psutil.Process:
    """The process that learns in this place."""
    for process in psutil.process_iter(["cmdline"]):
        command = process.info["cmdline"] or []
        if "rewardloop.loop.live" in command and str(data) in command:
            return process
    raise SystemExit("there is no learner")


def client_of(url: str, key: str) -> httpx2.Client:
    return httpx2.Client(base_url=url, headers={"authorization": f"Bearer {key}"}, timeout=20)


def place_of(url: str, key: str, data: Path) -> Place:
    with client_of(url, key) as client:
        model = client.get("/v1/models").json()["data"][0]["id"]
    port = urlsplit(url).port
    assert port is not None
    return Place(port, (key,), model, data, data, "")


# ---------------------------------------------------------------- at the clients


async def in_turn(place: Place, seen: Seen, rounds: int, block_s: float) -> None:
    """Calm, busy, calm, ... calm, while clients stream."""
    over = asyncio.Event()
    prompts = training_prompts(build_world(0))
    clients = [asyncio.create_task(listen(place, number, prompts, seen, over)) for number in range(CLIENTS)]
    learner = find_learner(place.data)
    await until_it_computes(seen)
    for turn in range(2 * rounds + 1):
        busy = turn % 2 == 1
        print(f"block {turn + 1} of {2 * rounds + 1}: {'busy' if busy else 'calm'}", file=sys.stderr, flush=True)
        with nullcontext() if busy else held_still(learner):
            await asyncio.sleep(SETTLING_S)
            began, worked = time.perf_counter(), learner.cpu_times()
            await asyncio.sleep(block_s)
            ended, had = time.perf_counter(), learner.cpu_times()
        seen.blocks.append((busy, began, ended))
        if busy:
            seen.worked.append((had.user + had.system - worked.user - worked.system) / (ended - began))
    over.set()
    await asyncio.gather(*clients)


async def until_it_computes(seen: Seen) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not seen.looks or seen.looks[-1][1] not in COMPUTES:
        if time.monotonic() > deadline:
            raise SystemExit("the learner does not begin")
        await asyncio.sleep(LOOK_S)


async def listen(place: Place, number: int, prompts: Sequence[Prompt], seen: Seen, over: asyncio.Event) -> None:
    """One client: an answer after the other, each heard to its end."""
    rng = random.Random(number)
    for turn in itertools.count():
        if over.is_set():
            return
        prompt = rng.choice(prompts)
        messages = [{"role": each.role, "content": each.content} for each in prompt if isinstance(each, Message)]
        asked = {"model": place.model, "messages": messages, "max_tokens": MOST_TOKENS, "seed": 1000 * number + turn}
        async with connection(place) as talk:
            before = began = time.perf_counter()
            async for text in talk.stream(asked):
                if not text:
                    continue
                now = time.perf_counter()
                if before == began:
                    seen.firsts.append((began, now))
                elif now - before > TOGETHER_S:
                    seen.gaps.append((before, now))
                before = now
        await asyncio.sleep(PAUSE_S * rng.uniform(0.5, 1.5))


if __name__ == "__main__":
    main()
