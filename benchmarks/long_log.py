"""Whether a long log slows anything down: python benchmarks/long_log.py [--quick] [--json FILE]

A log of a million events (--quick: a hundred thousand): answers with their tokens, and judgments of four kinds by three
hundred people. Measured:

    writing    commits of some hundred events, the last tenth of the log against the first; what waits grows with it
    start      until the gateway is ready on it
    ingest     100 clients, as in serving.py
    page       each view of it, asked for once, and again
"""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from harness import Figure, parse_options, report
from rewardloop.feedback.log.arrays import Sampled, pack
from rewardloop.feedback.log.database import data_url
from rewardloop.feedback.log.event_log import EventLog
from rewardloop.feedback.log.events import NewEvent
from rewardloop.feedback.log.submissions import feedback_event, parse_submission
from serving import HOST, Place, ingest, running_gateway, single

PEOPLE = 300
ANSWERS = 100  # of one commit
SAID = "At the mill, by the river. "
PROMPT = [{"role": "user", "content": "Where can I buy honey?"}]
VIEWS = ("dashboard", "annotators", "data", "data?q=river", "conversations", "queue/disagreements", "models", "audit")


def main() -> None:
    options = parse_options(__doc__)
    events = 100_000 if options.quick else 1_000_000
    took: list[float] = []
    with running_gateway("stub", fill=partial(fill, events, took)) as place:
        tenth = len(took) // 10
        early, late = (statistics.median(part) for part in (took[tenth : 2 * tenth], took[-tenth:]))
        figures = [
            single("commit of 400 events, second tenth of the log, median ms", 1000 * early),
            single("last tenth, median ms", 1000 * late),
            single("last tenth, as a multiple of the second", late / early, 1.5, "lower"),
            single("gateway ready after, s", place.up_s, 3.0, "lower"),
            *asyncio.run(ingest(place, 4 if options.quick else 20)),
            *views(place),
        ]
    report("A long log", figures, options, {"events": events})


def fill(events: int, took: list[float], folder: Path) -> None:
    """Write a log of so many events; adds the seconds of each commit to `took`."""
    with EventLog(data_url(folder)) as log:
        chance = random.Random(0)
        turn = 0
        while (newest := log.last_seq()) < events:
            print(f"\r{newest:,} of {events:,} events", end="", flush=True)
            for _ in range(20):
                batch = list(some_answers(turn, chance))
                began = time.perf_counter()
                log.append(batch)
                took.append(time.perf_counter() - began)
                turn += 1
        print(f"\r{log.last_seq():,} events" + " " * 20)


def some_answers(turn: int, chance: random.Random) -> Iterator[NewEvent]:
    """Answers and what is said of each; one judgment in ten is about an answer that never comes."""
    tokens = len(SAID)
    arrays = pack(
        Sampled(
            np.arange(8, dtype=np.int32),
            np.arange(tokens, dtype=np.int32),
            -np.ones(tokens, dtype=np.float32),
            np.zeros(tokens, dtype=np.int32),
            np.arange(1, tokens + 1, dtype=np.int32),
        )
    )
    for number in range(ANSWERS):
        name, talk = f"answer-{turn}-{number}", f"talk-{turn}-{number // 4}"
        about = {"actor_id": someone(chance), "actor_kind": "user", "target_id": name, "conversation_id": talk}
        started = {"prompt": PROMPT, "model": "town", "sampling": {"temperature": 1.0}, "external_id": f"mine-{name}"}
        yield NewEvent(kind="completion.started", body=started, **about)
        body = {"choice": 0, "text": SAID, "finish_reason": "stop"}
        yield NewEvent(kind="completion.finished", body=body, arrays=arrays, **about)
        for key in range(2):
            given = parse_submission(judgment(name, turn, number, chance))
            yield feedback_event(given, someone(chance), "user", idem_key=f"{name}-{key}")


def judgment(name: str, turn: int, number: int, chance: random.Random) -> dict[str, Any]:
    target = {"completion_id": name} if chance.random() > 0.1 else {"external_id": f"never {name}"}
    match chance.choices(["rating", "edit", "preference", "comment"], [6, 2, 1.5, 0.5])[0]:
        case "rating":
            return {"kind": "rating", "target": target, "value": chance.randrange(2), "scale": {"low": 0, "high": 1}}
        case "edit":
            return {"kind": "edit", "target": target, "corrected": "At the mill."}
        case "preference" if number:
            other = {"completion_id": f"answer-{turn}-{number - 1}"}
            return {"kind": "preference", "targets": [target, other], "choice": chance.choice(["first", "second"])}
        case _:
            return {"kind": "comment", "target": target, "text": "Too short."}


def someone(chance: random.Random) -> str:
    return f"person-{chance.randrange(PEOPLE)}"


def views(place: Place) -> list[Figure]:
    """Milliseconds of each view of the page, and what the gateway's memory has come to."""
    import httpx2

    figures = []
    with httpx2.Client(base_url=f"http://{HOST}:{place.port}", timeout=300) as client:
        assert client.post("/api/login", json={"name": "Bench", "password": "benchmark"}).status_code == 200
        for view in VIEWS:
            for how in ("", ", again"):
                began = time.perf_counter()
                assert client.get(f"/api/{view}").status_code == 200, view
                figures.append(single(f"{view}{how}, ms", 1000 * (time.perf_counter() - began)))
    memory = psutil.Process(place.process).memory_info().rss / 2**20
    return [*figures, single("gateway's memory, MiB", memory)]


if __name__ == "__main__":
    main()
