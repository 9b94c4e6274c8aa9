"""The decode engine in a thread of its own; requests come from, and tokens go to, an asyncio loop.

Between two steps the thread does what was asked for meanwhile: takes requests in, takes cancelled ones out, replaces
weights. So a cancelled request frees its slot within one step, and nothing waits for a lock that a step holds.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import Tensor

from rewardloop.errors import ModelError, RewardLoopError
from rewardloop.loop.processes.token_rewards import RewardStream, TokenRewarder
from rewardloop.rollout.engine import Engine, Request, TokenEvent
from rewardloop.types import Completion

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Said:
    """One token of one request, with its reward where that was asked for."""

    token_id: int
    logprob: float
    weight_version: int
    rewards: tuple[float, ...] = ()
    top: tuple[tuple[int, float], ...] = ()
    completion: Completion | None = None  # with the last token


class CrowdedError(RewardLoopError):
    """More requests wait than the engine takes; try again later."""


class EngineThread:
    """Runs `engine` until `close`. All methods are called from the asyncio loop it was made in."""

    def __init__(self, engine: Engine, *, most_waiting: int = 256) -> None:
        self._engine = engine
        self._most_waiting = most_waiting
        self._loop = asyncio.get_running_loop()
        self._wanted: deque[Callable[[], None]] = deque()
        self._wake = threading.Condition()
        self._listeners: dict[int, asyncio.Queue[Said | Exception]] = {}
        self._reward_streams: dict[int, RewardStream] = {}
        self._closing = False
        self.failure: Exception | None = None
        self.steps = 0
        self._thread = threading.Thread(target=self._run, name="decode", daemon=True)
        self._thread.start()

    @property
    def running(self) -> int:
        return len(self._listeners)

    async def say(self, request: Request, rewarder: TokenRewarder | None = None) -> AsyncGenerator[Said]:
        """The tokens of one completion as they are sampled, with the rewards that `rewarder` gives, if there is one.

        Leaving the iteration cancels what is left. Raises CrowdedError, ModelError and ConfigError as `Engine.submit`
        does.
        """
        if len(self._listeners) >= self._most_waiting:
            raise CrowdedError(f"{len(self._listeners)} requests are running or waiting; try again in a moment")
        heard: asyncio.Queue[Said | Exception] = asyncio.Queue()
        handle = await self._do(lambda: self._submit(request, heard, rewarder))
        finished = False
        try:
            while not finished:
                said = await heard.get()
                if isinstance(said, Exception):
                    finished = True
                    raise said
                finished = said.completion is not None
                yield said
        finally:
            self._listeners.pop(handle, None)
            if not finished:
                self._ask(lambda: self._cancel(handle))

    async def load_weights(self, tensors: Mapping[str, Tensor], version: int) -> None:
        """Replace the weights between two steps; running requests go on. Raises ModelError, with nothing changed."""
        await self._do(lambda: self._engine.load_weights(tensors, version))

    def close(self) -> None:
        """Stop after the present step."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join(timeout=10)

    # ------------------------------------------------------------ in the loop

    async def _do(self, action: Callable[[], T]) -> T:
        """Let the thread run `action` between two steps; its result or its error."""
        done: Future[T] = Future()

        def act() -> None:
            try:
                done.set_result(action())
            except Exception as error:  # noqa: BLE001 - whoever asked gets it
                done.set_exception(error)

        self._ask(act)
        return await asyncio.wrap_future(done)

    def _ask(self, action: Callable[[], None]) -> None:
        with self._wake:
            self._wanted.append(action)
            self._wake.notify()

    def _deliver(self, batch: Sequence[tuple[int, Said | Exception]]) -> None:
        for handle, said in batch:
            if (listener := self._listeners.get(handle)) is not None:
                listener.put_nowait(said)

    # ------------------------------------------------------------ in the thread

    def _run(self) -> None:
        while True:
            with self._wake:
                while not (self._wanted or self._engine.busy or self._closing):
                    self._wake.wait()
                wanted, self._wanted = self._wanted, deque()
                closing = self._closing
            for action in wanted:
                action()
            if closing:
                return
            if self._engine.busy:
                self._step()

    def _step(self) -> None:
        try:
            events = self._engine.step()
        except Exception as error:  # noqa: BLE001 - every client hears of it, the process stays
            self.failure = error
            lost = error if isinstance(error, RewardLoopError) else ModelError(f"the engine failed: {error}")
            for handle in list(self._listeners):
                self._engine.cancel(handle)
            self._reward_streams.clear()
            self._hand_over([(handle, lost) for handle in list(self._listeners)])
            return
        self.failure = None
        self.steps += 1
        self._hand_over([(event.handle, self._said(event)) for event in events])

    def _hand_over(self, batch: list[tuple[int, Any]]) -> None:
        self._loop.call_soon_threadsafe(self._deliver, batch)

    def _submit(self, request: Request, heard: asyncio.Queue[Said | Exception], rewarder: TokenRewarder | None) -> int:
        handle = self._engine.submit(request)
        self._listeners[handle] = heard
        if rewarder is not None and request.prompt_ids is not None:
            self._reward_streams[handle] = rewarder.begin(request.prompt_ids)
        return handle

    def _cancel(self, handle: int) -> None:
        self._engine.cancel(handle)
        self._reward_streams.pop(handle, None)

    def _said(self, event: TokenEvent) -> Said:
        rewards: tuple[float, ...] = ()
        if (stream := self._reward_streams.get(event.handle)) is not None:
            rewards = (stream.extend(event.token_id),)
            if event.completion is not None:
                del self._reward_streams[event.handle]
        return Said(event.token_id, event.logprob, event.weight_version, rewards, event.top, event.completion)
