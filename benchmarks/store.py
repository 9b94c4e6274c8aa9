"""How fast feedback becomes durable: python benchmarks/store.py [--quick] [--json FILE]

100 clients, each a thread that waits for the acknowledgment (the commit on the disk) before it sends the next thumb;
then 200 people who send one event a second each. The writer alone, without the HTTP of the gateway.
"""

from __future__ import annotations

import random
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path

import numpy as np

from harness import Figure, Options, parse_options, report, spread
from rewardloop.feedback.log.database import data_url
from rewardloop.feedback.log.event_log import EventLog
from rewardloop.feedback.log.events import NewEvent
from rewardloop.feedback.log.submissions import feedback_event, parse_submission
from rewardloop.feedback.log.writer import Writer

CLIENTS = 100
PEOPLE = 200
COMPLETIONS = 200


def main(options: Options) -> None:
    seconds = 3.0 if options.quick else 10.0
    rounds = 1 if options.quick else 3
    closed, paced = [], []
    for turn in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            url = data_url(Path(folder))
            log = EventLog(url)
            log.append([completion for number in range(COMPLETIONS) for completion in answer(number)])
            with Writer(log) as writer:
                closed.append(measure(partial(thumbs, writer, 2 * turn), CLIENTS, seconds, 0.0))
                paced.append(measure(partial(thumbs, writer, 2 * turn + 1), PEOPLE, seconds, 1.0))
            log.close()
    figures = [
        spread(f"{CLIENTS} clients: events/s", [len(ms) / seconds for ms in closed], target=1000),
        *percentiles(f"{CLIENTS} clients", closed, {50: None, 95: 60.0, 99: 150.0}),
        *percentiles(f"{PEOPLE} people, one a second", paced, {50: None, 95: 30.0}),
    ]
    report("Durable feedback (SQLite, synchronous=FULL)", figures, options, {"seconds": seconds, "rounds": rounds})


def answer(number: int) -> tuple[NewEvent, NewEvent]:
    said = {"actor_id": "engine", "actor_kind": "engine", "target_id": f"answer-{number}"}
    started = NewEvent(kind="completion.started", body={"prompt": "Where can I buy honey?"}, **said)
    return started, NewEvent(kind="completion.finished", body={"text": "Here.", "finish_reason": "stop"}, **said)


def thumbs(writer: Writer, run: int, client: int) -> Callable[[], None]:
    """What one client does again and again."""
    numbers = count()

    def send() -> None:
        number = next(numbers)
        values = {
            "kind": "rating",
            "target": {"completion_id": f"answer-{(client + number) % COMPLETIONS}"},
            "value": number % 2,
            "scale": {"low": 0, "high": 1},
        }
        submission = parse_submission(values)
        event = feedback_event(submission, f"client-{client}", "user", idem_key=f"{run}-{number}")
        writer.submit([event]).result()

    return send


def measure(client: Callable[[int], Callable[[], None]], clients: int, seconds: float, every_s: float) -> list[float]:
    """Milliseconds of every call that ended within `seconds`."""
    taken: list[list[float]] = [[] for _ in range(clients)]
    end = time.perf_counter() + seconds

    def work(number: int) -> None:
        send, next_s = client(number), time.perf_counter() + random.Random(number).random() * every_s
        while next_s < end:
            time.sleep(max(next_s - time.perf_counter(), 0))
            start = time.perf_counter()
            send()
            taken[number].append((time.perf_counter() - start) * 1000)
            next_s = max(next_s + every_s, time.perf_counter()) if every_s == 0 else next_s + every_s

    threads = [threading.Thread(target=work, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [ms for row in taken for ms in row]


def percentiles(name: str, rounds: list[list[float]], wanted: dict[int, float | None]) -> list[Figure]:
    return [
        spread(f"{name}: p{q}, ms", [float(np.percentile(ms, q)) for ms in rounds], target=target, better="lower")
        for q, target in wanted.items()
    ]


if __name__ == "__main__":
    main(parse_options(__doc__))
