"""What goes out by HTTP: one write for one turn of the event loop, nothing lost at the end."""

from __future__ import annotations

import asyncio
from typing import cast

from rewardloop.serve.edge.http import Gathered


class Wire:
    """Remembers each system call that a transport would make."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.closed = False

    def write(self, data: bytes) -> None:
        assert not self.closed
        self.writes.append(data)

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed


def test_what_is_written_in_one_turn_goes_together_and_before_the_end() -> None:
    async def talk() -> Wire:
        wire = Wire()
        gathered = Gathered(cast(asyncio.Transport, wire), asyncio.get_running_loop())
        gathered.write(b"head ")
        gathered.write(b"body")
        assert wire.writes == []
        await asyncio.sleep(0)
        assert wire.writes == [b"head body"]
        gathered.write(b"more")
        await asyncio.sleep(0)
        gathered.write(b"last ")
        gathered.write(b"words")
        gathered.close()
        assert gathered.is_closing()
        gathered.write(b"after the end")
        await asyncio.sleep(0)
        return wire

    wire = asyncio.run(talk())
    assert wire.writes == [b"head body", b"more", b"last words"]
    assert wire.closed
