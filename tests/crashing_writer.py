"""A process that appends until it is killed: python crashing_writer.py URL [FIRST]

Sixteen threads send the keys FIRST, FIRST + 1 ... (from 0) and print "actor key seq" after each acknowledgment.
"""

from __future__ import annotations

import sys
import threading

from log_events import finished, said, started
from rewardloop.feedback.log.event_log import EventLog
from rewardloop.feedback.log.writer import Writer

CLIENTS = 16


def main(url: str, first: int = 0) -> None:
    log = EventLog(url)
    writer = Writer(log)
    threads = [threading.Thread(target=send, args=(writer, f"p{number}", first)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()


def send(writer: Writer, actor: str, first: int) -> None:
    key = first
    while True:
        name = f"{actor}-{key}"
        thumb = said({"external_id": name}, by=actor, key=str(key))
        (stored, *_) = writer.submit(
            [thumb, started(name, external=name), finished(name)][: 1 + 2 * (key % 2)]
        ).result()
        sys.stdout.write(f"{actor} {key} {stored.seq}\n")
        sys.stdout.flush()
        key += 1


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
