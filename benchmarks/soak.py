"""The whole product for an hour: python benchmarks/soak.py [--minutes N] [--quick] [--json FILE]

`rewardloop up` with the built-in model as in `rewardloop simulate --live`; four careful people ask and judge once a
second between them, all the while. Meanwhile the resident memory of every process is read. Found in the end:

    memory     growth of the mean from the second tenth of the time to the last one, for each process (the first tenth
               is start and first rounds); a process that was started again counts as grown
    errors     lines of the logs that speak of one, answers that were refused or cut, alarms
    work       judgments taken, versions published and served
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psutil

from harness import Figure, parse_options, report
from rewardloop.cli.simulate_live import opened
from rewardloop.errors import StoreError
from rewardloop.feedback.log.database import data_url
from rewardloop.feedback.log.event_log import LogReader
from rewardloop.loop.live.crowd import Crowd
from rewardloop.sandbox.annotators import SimulatedAnnotator
from rewardloop.sandbox.dialogues import training_prompts
from rewardloop.sandbox.world import build_world
from serving import single

MODULES: Final = {
    "gateway": "rewardloop.serve",
    "engine": "rewardloop.loop.processes.engine_server",
    "learner": "rewardloop.loop.live",
}
PEOPLE: Final = 4
PER_SECOND: Final = 1.0  # judgments
MOST_GROWTH: Final = 0.05
TENTHS: Final = 10
MIB: Final = 1 << 20
LOOK_S: Final = 1.0
SAY_S: Final = 60.0
TRIES: Final = 60
LAST_WORD_S: Final = 90.0  # for what is being said when the time is over
POLICY: Final = ("policy.published", "policy.activated", "policy.rolled_back", "policy.alarm")


def main() -> None:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--minutes", type=float)
    given, rest = parser.parse_known_args()
    options = parse_options(__doc__, rest)
    minutes = given.minutes or (0.5 if options.quick else 60.0)
    with tempfile.TemporaryDirectory(prefix="rl-") as name:
        data = Path(name) / "data"
        with opened(data, None, 0) as (url, key):
            memory = Memory()
            said = live(url, key, 60 * minutes, memory)
            figures = [*memory.figures(claimed=not options.quick), *said]
        figures += [*logged(data), *worked(data)]
    settings = {"minutes": minutes, "people": PEOPLE, "per_second": PER_SECOND, "MiB": memory.curves()}
    report(f"{minutes:g} minutes of serving and learning", figures, options, settings)


# ---------------------------------------------------------------- memory


@dataclass
class Memory:
    """What every process had resident, bytes, read once a second."""

    seen: dict[str, list[int]] = field(default_factory=lambda: {name: [] for name in MODULES})
    processes: dict[str, set[int]] = field(default_factory=lambda: {name: set() for name in MODULES})

    def look(self, supervisor: psutil.Process) -> None:
        for process in supervisor.children():
            try:
                command, resident = process.cmdline(), process.memory_info().rss
            except psutil.Error:  # it ended in this moment
                continue
            for name, module in MODULES.items():
                if module in command:
                    self.seen[name].append(resident)
                    self.processes[name].add(process.pid)

    def tenths(self, name: str) -> list[float]:
        """Mean of every tenth of the time."""
        seen, count = self.seen[name], len(self.seen[name])
        parts = [seen[count * i // TENTHS : count * (i + 1) // TENTHS] for i in range(TENTHS)]
        return [sum(part) / len(part) for part in parts if part]

    def curves(self) -> dict[str, list[int]]:
        return {name: [round(each / MIB) for each in self.tenths(name)] for name in MODULES}

    def figures(self, *, claimed: bool) -> Iterator[Figure]:
        for name in MODULES:
            tenths = self.tenths(name)
            growth = tenths[-1] / tenths[1] - 1
            yield single(f"{name}: growth", growth, MOST_GROWTH if claimed else None, "lower")
            yield Figure(f"{name}: resident in the end, MiB", tenths[-1] / MIB, tenths[0] / MIB, max(tenths) / MIB)
            yield single(f"{name}: started again", len(self.processes[name]) - 1, 0, "lower")


# ---------------------------------------------------------------- people


@dataclass
class Counting(Crowd):
    """Asks again what was refused, and remembers that it was."""

    refused: list[str] = field(default_factory=list)

    def _ask(self, *asked: Any) -> dict[str, Any]:
        for _ in range(TRIES):
            try:
                return super()._ask(*asked)
            except StoreError as error:
                self.refused.append(str(error))
                time.sleep(1.0)
        raise StoreError(self.refused[-1])


def live(url: str, key: str, seconds: float, memory: Memory) -> list[Figure]:
    """Let people come until the time is over."""
    world, end = build_world(0), time.monotonic() + seconds
    people = [SimulatedAnnotator(world, "careful", name=f"person-{at}", seed=at) for at in range(PEOPLE)]
    crowd = Counting(url, key, people, training_prompts(world), seed=0, tries=1)
    asked = (10**9, PER_SECOND, lambda: time.monotonic() < end)
    speaking = threading.Thread(target=crowd.speak, args=asked, daemon=True)
    speaking.start()
    (supervisor,) = (each for each in psutil.Process().children() if "up" in each.cmdline())
    due = time.monotonic() + SAY_S
    while (now := time.monotonic()) < end:
        memory.look(supervisor)
        if now > due:
            print(f"{(end - now) / 60:.0f} minutes left, {len(crowd.given)} judgments", file=sys.stderr, flush=True)
            due += SAY_S
        time.sleep(LOOK_S)
    speaking.join(LAST_WORD_S)
    if crowd.refused:
        print(f"first refused: {crowd.refused[0]}", file=sys.stderr)
    return [
        single("judgments acknowledged", len(crowd.given)),
        single("requests refused or broken off", len(crowd.refused), 0, "lower"),
    ]


# ---------------------------------------------------------------- what is left


def logged(data: Path) -> list[Figure]:
    """Lines of the logs that are no mere news."""
    lines = [line for path in (data / "logs").glob("*.log") for line in path.read_text().splitlines() if is_bad(line)]
    for line in lines[:5]:
        print(line[:300], file=sys.stderr)
    return [single("errors and warnings in the logs", len(lines), 0, "lower")]


def is_bad(line: str) -> bool:
    try:
        return json.loads(line)["level"] not in ("debug", "info")
    except (ValueError, KeyError, TypeError):
        return bool(line.strip())  # the end of a program that fell


def worked(data: Path) -> list[Figure]:
    """What the log has of it."""
    counts: Counter[str] = Counter()
    cut = after = 0
    with LogReader(data_url(data)) as log:
        while events := log.read(after, ("completion.finished", "feedback.created", *POLICY)):
            counts.update(event.kind for event in events)
            cut += sum(event.body.get("finish_reason", "stop") not in ("stop", "length") for event in events)
            after = events[-1].seq
    return [
        single("answers", counts["completion.finished"]),
        single("answers cut", cut, 0, "lower"),
        single("judgments taken", counts["feedback.created"]),
        *(single(f"versions {kind.partition('.')[2].replace('_', ' ')}", counts[kind]) for kind in POLICY[:3]),
        single("alarms of the learner", counts["policy.alarm"]),
    ]


if __name__ == "__main__":
    main()
