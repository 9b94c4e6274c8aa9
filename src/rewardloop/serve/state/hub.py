"""Open pages: what is said to each tab, numbered, and kept for a while: a tab that was cut off misses nothing."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final

from rewardloop.feedback.log.events import Appended
from rewardloop.serve.edge.access import Caller

KEPT: Final = 4096  # messages of a tab that a reconnect can ask for again
GONE_S: Final = 60.0  # a tab that stays away longer is forgotten, and what it asked for is stopped
MOST_TABS: Final = 32  # of one person; the one longest away makes room


class Tab:
    """One tab of somebody's browser, across reconnects."""

    def __init__(self, account_id: str) -> None:
        self.account_id = account_id
        self.tasks: dict[str, asyncio.Task[None]] = {}  # answers being spoken, by request
        self.connections = 0
        self.left_at = 0.0
        self._sent: deque[dict[str, Any]] = deque(maxlen=KEPT)
        self._last = 0
        self._news = asyncio.Event()
        self._read = 0  # number of the newest message that was handed to the socket

    @property
    def knows_nothing(self) -> bool:
        """Whether nothing was said to it yet: it is new, or this process is."""
        return self._last == 0

    def say(self, kind: str, **values: Any) -> None:
        """Something for this tab; it is sent when it is connected."""
        self._last += 1
        self._sent.append({"type": kind, "s": self._last, **values})
        self._news.set()

    def resume(self, last: int) -> bool:
        """Send everything after message `last` again; False where this tab was never sent so much, or not any more."""
        oldest = self._sent[0]["s"] if self._sent else self._last + 1
        if not oldest - 1 <= last <= self._last:
            return False
        self._read = last
        self._news.set()
        return True

    async def unread(self) -> list[dict[str, Any]]:
        """Messages to send now; waits for at least one."""
        while self._read >= self._last:
            self._news.clear()
            await self._news.wait()
        waiting = [message for message in self._sent if message["s"] > self._read]
        self._read = self._last
        return waiting

    def stop(self) -> None:
        for task in self.tasks.values():
            task.cancel()


class Hub:
    """All tabs."""

    def __init__(self, settling_s: Callable[[], float]) -> None:
        self._tabs: dict[tuple[str, str], Tab] = {}
        self._settling_s = settling_s
        self._later: set[asyncio.TimerHandle] = set()

    def enter(self, account_id: str, name: str) -> Tab:
        """The tab of this name, new or back again."""
        tab = self._tabs.setdefault((account_id, name), Tab(account_id))
        tab.connections += 1
        self._forget_surplus(account_id)
        return tab

    def leave(self, tab: Tab) -> None:
        """Its connection is gone; it may come back."""
        loop = asyncio.get_running_loop()
        tab.connections -= 1
        tab.left_at = loop.time()
        self._do_later(GONE_S, lambda: self._forget(tab))

    def tell(self, account_id: str, kind: str, **values: Any) -> None:
        """Something for every tab of a person."""
        for tab in self._tabs.values():
            if tab.account_id == account_id:
                tab.say(kind, **values)

    def tell_all(self, kind: str, **values: Any) -> None:
        """Something for everybody."""
        for tab in self._tabs.values():
            tab.say(kind, **values)

    def tell_feedback(self, caller: Caller, stored: Appended) -> None:
        """How far a judgment has come: saved now, settled in a while."""
        if caller.kind == "user":
            self.tell(caller.id, "feedback", id=stored.id, status="saved")
            settled: Mapping[str, Any] = {"id": stored.id, "status": "settled"}
            self._do_later(self._settling_s(), lambda: self.tell(caller.id, "feedback", **settled))

    def close(self) -> None:
        for handle in self._later:
            handle.cancel()
        for tab in self._tabs.values():
            tab.stop()

    def _do_later(self, seconds: float, action: Callable[[], None]) -> None:
        def act() -> None:
            self._later.discard(handle)
            action()

        handle = asyncio.get_running_loop().call_later(seconds, act)
        self._later.add(handle)

    def _forget(self, tab: Tab) -> None:
        if tab.connections == 0 and asyncio.get_running_loop().time() - tab.left_at >= GONE_S - 0.1:
            tab.stop()
            self._tabs = {key: each for key, each in self._tabs.items() if each is not tab}

    def _forget_surplus(self, account_id: str) -> None:
        mine = [(key, tab) for key, tab in self._tabs.items() if tab.account_id == account_id]
        away = sorted((tab.left_at, key) for key, tab in mine if tab.connections == 0)
        for _, key in away[: max(0, len(mine) - MOST_TABS)]:
            self._tabs.pop(key).stop()
