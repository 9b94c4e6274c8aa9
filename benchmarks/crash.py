"""Kill -9 while feedback is written: python benchmarks/crash.py [--quick] [--json FILE]

A process appends for sixteen clients and is killed at a random moment, 50 times, on one database. Each life begins with
the last five idempotency keys of the one before, whose fate its clients may not know. Counted: acknowledged events
that are lost or have another number, events stored twice, and how long it takes until the log is open again.
"""

from __future__ import annotations

import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

from harness import Figure, Options, parse_options, report, spread
from rewardloop.feedback.log.database import data_url, database_file
from rewardloop.feedback.log.event_log import EventLog

WRITER = Path(__file__).parents[1] / "tests" / "crashing_writer.py"
RETRIED = 5  # keys
LONGEST_S = 2.0  # of a life, from its first acknowledgment


def main(options: Options) -> None:
    lives, rng = 5 if options.quick else 50, random.Random(0)
    acknowledged: dict[tuple[str, str], int] = {}
    lost, opened_s, first = 0, [], 0
    with tempfile.TemporaryDirectory() as folder:
        url = data_url(Path(folder))
        for _ in range(lives):
            heard = live_and_die(url, first, rng.random() * LONGEST_S)
            first = max(first, *(int(key) - RETRIED for _, key in heard))
            lost += sum(acknowledged.get(key, seq) != seq for key, seq in heard.items())
            acknowledged |= heard
            start = time.perf_counter()
            with EventLog(url) as log:
                opened_s.append(time.perf_counter() - start)
                stored = {(event.actor_id, str(event.idem_key)): event.seq for event in log.read(limit=10**7)}
            lost += sum(stored.get(key) != seq for key, seq in acknowledged.items())
        doubled, sound = count_doubled(url)
    figures = [
        spread("acknowledged events", [len(acknowledged)]),
        spread("acknowledged events lost or changed", [lost], target=0, better="lower"),
        spread("events stored twice", [doubled], target=0, better="lower"),
        spread("integrity_check found, other than ok", [not sound], target=0, better="lower"),
        Figure("open again, s", sorted(opened_s)[len(opened_s) // 2], min(opened_s), max(opened_s), 3.0, "lower"),
    ]
    report(f"kill -9, {lives} times", figures, options, {"lives": lives})


def live_and_die(url: str, first: int, after_s: float) -> dict[tuple[str, str], int]:
    """What a writer acknowledged before it was killed, `after_s` seconds after its first acknowledgment."""
    with subprocess.Popen([sys.executable, str(WRITER), url, str(first)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline()]
        killer = threading.Timer(after_s, process.send_signal, [signal.SIGKILL])
        killer.start()
        lines += process.stdout.readlines()
        killer.join()
    whole = [line.split() for line in lines if line.endswith("\n")]
    return {(actor, key): int(seq) for actor, key, seq in whole}


def count_doubled(url: str) -> tuple[int, bool]:
    """Thumbs of one actor about one thing beyond the first, and whether SQLite finds the file sound."""
    connection = sqlite3.connect(database_file(url))
    bodies = connection.execute("SELECT actor_id, body FROM event WHERE kind = 'feedback.created'").fetchall()
    sound = connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()
    return sum(count - 1 for count in Counter(bodies).values()), sound


if __name__ == "__main__":
    main(parse_options(__doc__))
