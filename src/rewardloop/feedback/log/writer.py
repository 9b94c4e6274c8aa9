"""Group commit: one thread appends for all callers, everything that waits in one transaction.

A commit costs a sync of the disk, whether it holds one event or a hundred.

    writer = Writer(log)
    future = writer.submit([event])          # from any thread; asyncio: await asyncio.wrap_future(future)
    (appended,) = future.result()            # resolved after the commit
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Final, Self

from rewardloop.errors import RewardLoopError
from rewardloop.feedback.log.event_log import EventLog
from rewardloop.feedback.log.events import Appended, NewEvent
from rewardloop.feedback.log.failures import StoreBusyError, StoreUnavailableError

QUEUED: Final = 4096  # appends that may wait; more are refused
TOGETHER: Final = 256  # appends in one transaction at most


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    events: Sequence[NewEvent]
    future: Future[list[Appended]]


class Writer:
    """The thread that appends. Closing it writes what waits first."""

    def __init__(self, log: EventLog, queued: int = QUEUED) -> None:
        self.log = log
        self._queue: queue.Queue[_Waiting | None] = queue.Queue(queued)
        self._closed = False
        self._closing = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="event-log-writer", daemon=True)
        self._thread.start()

    def submit(self, events: Sequence[NewEvent]) -> Future[list[Appended]]:
        """As EventLog.append, all or nothing; the future is resolved after the commit, or fails as append does.

        Raises StoreBusyError at once when too much is waiting, StoreUnavailableError after `close`.
        """
        future: Future[list[Appended]] = Future()
        with self._closing:
            if self._closed:
                raise StoreUnavailableError("the event log was closed; nothing was stored")
            try:
                self._queue.put_nowait(_Waiting(events, future))
            except queue.Full:
                raise StoreBusyError(
                    f"{self._queue.maxsize} writes are waiting; nothing was stored, try again a little later"
                ) from None
        return future

    @property
    def backlog(self) -> int:
        """Appends that wait now."""
        return self._queue.qsize()

    def close(self) -> None:
        """Write what waits, then stop. The log stays open."""
        with self._closing:
            if not self._closed:
                self._closed = True
                self._queue.put(None)
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self) -> None:
        open_for_more = True
        while open_for_more:
            group, open_for_more = self._take()
            # From here on a future cannot be cancelled any more: what is stored is reported.
            group = [waiting for waiting in group if waiting.future.set_running_or_notify_cancel()]
            if group:
                self._append(group)

    def _take(self) -> tuple[list[_Waiting], bool]:
        """Everything that waits, at least one; False when it is the end."""
        group: list[_Waiting] = []
        item = self._queue.get()
        while item is not None:
            group.append(item)
            if len(group) == TOGETHER:
                return group, True
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                return group, True
        return group, False

    def _append(self, group: Sequence[_Waiting]) -> None:
        try:
            results = self.log.append_each([waiting.events for waiting in group])
        except BaseException as error:  # noqa: BLE001 whatever it was, the callers hear of it and the thread goes on
            failure = error if isinstance(error, RewardLoopError) else StoreUnavailableError(repr(error))
            for waiting in group:
                waiting.future.set_exception(failure)
            return
        for waiting, result in zip(group, results, strict=True):
            if isinstance(result, Exception):
                waiting.future.set_exception(result)
            else:
                waiting.future.set_result(result)
