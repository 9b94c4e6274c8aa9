"""Makes the answers that the queue hands out: in the background, a few at a time, each once."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Annotated, Final, cast

from fastapi import Depends
from starlette.requests import HTTPConnection

from rewardloop.errors import RewardLoopError
from rewardloop.feedback.log.events import NewEvent
from rewardloop.feedback.log.settled import load_completion
from rewardloop.serve.edge.access import Caller
from rewardloop.serve.gateway import Gateway
from rewardloop.serve.state.queue import Task
from rewardloop.serve.work.answers import Question, answering

AT_ONCE: Final = 2  # leaves room for people who are waiting for an answer
AGAIN_S: Final = 2.0
COOK: Final = Caller("system", "queue", "queue")  # in whose name the answers are made


class Kitchen:
    """Prepares tasks."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._places = asyncio.Semaphore(AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()

    def resume(self) -> None:
        """Go on with every task that was begun before."""
        for task in self._gateway.queue.tasks:
            self.prepare(task)

    def prepare(self, task: Task) -> None:
        """Make, or find in the log, every answer that `task` needs."""
        running = asyncio.create_task(self._prepare(task))
        self._tasks.add(running)
        running.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _prepare(self, task: Task) -> None:
        places = self._gateway.queue.missing(task)
        await asyncio.gather(*(self._place(task, place) for place in places))

    async def _place(self, task: Task, place: int) -> None:
        async with self._places:
            while self._gateway.queue.task(task.id) is not None:
                with suppress(RewardLoopError):  # the engine may be starting, the disk be full: later
                    texts = await self._known(task, place) or await self._make(task, place)
                    self._gateway.queue.offer(task, place, texts)
                    return
                await asyncio.sleep(AGAIN_S)

    async def _known(self, task: Task, place: int) -> tuple[str, ...] | None:
        name, store = task.completion_id(place), self._gateway.log
        found = [await self._gateway.read(load_completion, store, name, at) for at in range(task.candidates)]
        texts = tuple(each.completion.text for each in found if each is not None)
        return texts if len(texts) == task.candidates else None

    async def _make(self, task: Task, place: int) -> tuple[str, ...]:
        if task.is_gold(place):
            return await self._write(task, place)
        info = await self._gateway.engine.model()
        question = Question(
            completion_id=task.completion_id(place),
            prompt=task.prompt(place),
            model=info.id,
            sampling={"temperature": 1.0, "n": task.candidates},
            max_tokens=min(256, info.context // 2),
            metadata={"queue": task.id},
        )
        async with answering(self._gateway, COOK, question) as (answer, pieces):
            async for _ in pieces:
                pass
        return tuple(choice.text for choice in answer.choices)

    async def _write(self, task: Task, place: int) -> tuple[str, ...]:
        """A gold item: texts that were given."""
        texts = task.gold_texts(place)
        metadata = {"queue": task.id, "gold": True}
        about = {"prompt": task.prompt(place), "model": "gold", "choices": len(texts), "metadata": metadata}
        events = [_written("completion.started", task, place, about)]
        for choice, text in enumerate(texts):
            body = {"choice": choice, "text": text, "finish_reason": "stop"}
            events.append(_written("completion.finished", task, place, body))
        await self._gateway.append(*events)
        return texts


async def kitchen_of(connection: HTTPConnection) -> Kitchen:
    """The kitchen of the gateway that serves this request."""
    return cast(Kitchen, connection.app.state.kitchen)


TheKitchen = Annotated[Kitchen, Depends(kitchen_of)]


def _written(kind: str, task: Task, place: int, body: dict[str, object]) -> NewEvent:
    return NewEvent(kind=kind, actor_id=COOK.id, actor_kind=COOK.kind, target_id=task.completion_id(place), body=body)
