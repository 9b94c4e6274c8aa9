"""What the writer's thread has done, handed to the event loop: all at once what is done at once.

`asyncio.wrap_future` wakes the loop for every future; a commit of a hundred events would wake it a hundred times.
"""

from __future__ import annotations

import asyncio
from collections import deque
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


class Landing:
    """For one event loop."""

    def __init__(self) -> None:
        self._done: deque[tuple[asyncio.Future[object], Future[object]]] = deque()
        self._called = False  # whether the loop has been told that there is something

    async def of(self, future: Future[T]) -> T:
        """The result of `future`. Whoever stops waiting cancels it, if it has not begun."""
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[T] = loop.create_future()

        def land(done: Future[T]) -> None:
            self._done.append((waiter, done))  # type: ignore[arg-type]
            if not self._called:
                self._called = True
                loop.call_soon_threadsafe(self._hand_out)

        future.add_done_callback(land)
        try:
            return await waiter
        except asyncio.CancelledError:
            future.cancel()
            raise

    def _hand_out(self) -> None:
        self._called = False  # before looking: what comes from here on calls again
        while self._done:
            waiter, done = self._done.popleft()
            if waiter.done() or done.cancelled():
                continue
            if (error := done.exception()) is not None:
                waiter.set_exception(error)
            else:
                waiter.set_result(done.result())
