"""The record: nothing of it is lost, and a turn of the event loop writes once."""

from __future__ import annotations

import asyncio
import io
import json
import subprocess
import sys

from rewardloop.serve.edge.record import Lines


class Out(io.StringIO):
    def __init__(self) -> None:
        super().__init__()
        self.writes: list[str] = []

    def write(self, text: str) -> int:
        self.writes.append(text)
        return super().write(text)


def test_the_lines_of_one_turn_are_one_write() -> None:
    out = Out()
    lines = Lines(out)

    async def work() -> None:
        for turn in range(2):
            for line in "ab":
                lines.msg(f"{line}{turn}")
            await asyncio.sleep(0)

    asyncio.run(work())
    assert out.writes == ["a0\nb0\n", "a1\nb1\n"]


def test_without_an_event_loop_a_line_is_written_at_once() -> None:
    out = Out()
    Lines(out).msg("before it starts")
    assert out.writes == ["before it starts\n"]


def test_what_is_said_in_the_last_turn_is_written_before_the_end() -> None:
    program = """
import asyncio
import structlog
from rewardloop.serve.edge.record import set_up_logging

def work():
    loop.stop()
    structlog.get_logger("gateway").info("last", path="/ä", odd=object)

set_up_logging()
loop = asyncio.new_event_loop()
loop.call_soon(work)
loop.run_forever()
"""
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    (line,) = said.splitlines()
    assert {key: json.loads(line)[key] for key in ("event", "path", "level")} == {
        "event": "last",
        "path": "/ä",
        "level": "info",
    }
