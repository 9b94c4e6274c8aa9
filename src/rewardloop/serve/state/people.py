"""Who judges, how much they agree, and how far each can be trusted; measured in the background of a request."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from rewardloop.feedback.log.event_log import LogReader
from rewardloop.feedback.log.events import Event
from rewardloop.feedback.log.settled import SettledFeedback, before_newest, settled_feedback
from rewardloop.feedback.rulings import Ruling, standing_exclusions

if TYPE_CHECKING:
    from rewardloop.feedback.agreement import Agreement, Consistency
    from rewardloop.feedback.monitoring import StraightLine
    from rewardloop.feedback.queue import Informing
    from rewardloop.feedback.reliability import Reliability

FRESH_S: Final = 10.0  # a measurement is good for so long
STALE_S: Final = 60.0  # and, to choose questions by, for so long
DAYS: Final = 14
DAY_S: Final = 24 * 3600
NAMELESS: Final = "nobody in particular"  # imported judgments need not say whose they are
NEWEST: Final = 20_000  # judgments that are measured


@dataclass(frozen=True)
class Measured:
    """What the judgments so far say about the people who passed them."""

    at: float = 0.0
    agreement: tuple[Agreement, ...] = ()
    reliability: dict[str, Reliability] = field(default_factory=dict)
    consistency: dict[str, Consistency] = field(default_factory=dict)
    straight: dict[str, StraightLine] = field(default_factory=dict)
    drifting: frozenset[str] = frozenset()
    by_kind: dict[str, Counter[str]] = field(default_factory=dict)
    daily: dict[str, list[int]] = field(default_factory=dict)
    informing: Callable[[str], Informing] | None = None  # by annotator: what it would teach to ask them


class People:
    """Keeps what was read and the last measurement."""

    def __init__(self, log: LogReader, rulings: Sequence[Ruling] = ()) -> None:
        self._log = log
        self._seen: dict[str, SettledFeedback] = {}
        self._after = 0
        self.rulings = list(rulings)
        self._measured = Measured()
        self._turn = asyncio.Lock()
        self._measuring: asyncio.Task[Measured] | None = None

    @property
    def headline_alpha(self) -> float | None:
        """Agreement on what was judged most, as of the last measurement."""
        known = [each for each in self._measured.agreement if each.alpha is not None]
        return max(known, key=lambda each: each.judgments).alpha if known else None

    @property
    def excluded(self) -> dict[str, Ruling]:
        """Whose judgments do not count, and why."""
        return standing_exclusions(self.rulings)

    def apply(self, event: Event) -> None:
        """Let an event of the log have its effect. Events of other kinds have none."""
        if event.kind in ("annotator.excluded", "annotator.included"):
            action = "exclude" if event.kind == "annotator.excluded" else "restore"
            reason = str(event.body.get("reason", ""))
            self.rulings.append(Ruling(str(event.target_id), action, reason, event.actor_id, event.ts))  # type: ignore[arg-type]

    async def measured(self) -> Measured:
        """What is known now, or was known a few seconds ago."""
        async with self._turn:
            if time.time() - self._measured.at > FRESH_S:
                self._measured = await asyncio.to_thread(self._measure)
        return self._measured

    def informing(self, annotator: str) -> Informing | None:
        """What it would teach to ask this person, by the last measurement; None where nothing is known yet.

        Does not wait: where the measurement is stale, a new one begins.
        """
        if time.time() - self._measured.at > STALE_S and (self._measuring is None or self._measuring.done()):
            self._measuring = asyncio.create_task(self.measured())
        of = self._measured.informing
        return None if of is None else of(annotator)

    def _measure(self) -> Measured:
        # scipy and what stands on it take more than half a second to import: not while the gateway starts.
        from rewardloop.serve.state.measuring import measure

        self._read_on()
        return measure(sorted(self._seen.values(), key=lambda each: each.seq))

    def _read_on(self) -> None:
        """Have the newest judgments here, and no more of them than are measured."""
        self._after = max(self._after, before_newest(self._log, NEWEST))
        while True:
            page = settled_feedback(self._log, self._after, time.time(), settling_s=0)
            self._seen |= {each.id: each for each in page.items}
            for gone in page.withdrawn:
                self._seen.pop(gone, None)
            if page.last_seq == self._after:
                break
            self._after = page.last_seq
        newest = sorted(self._seen.values(), key=lambda each: (each.ready_seq, each.seq))[-NEWEST:]
        self._seen = {each.id: each for each in newest}


def agreement_view(each: Agreement) -> dict[str, Any]:
    """Agreement as the page shows it."""
    low, high = each.interval or (None, None)
    return {
        "kind": each.question.kind,
        "criterion": each.question.criterion,
        "level": each.question.level,
        "alpha": each.alpha,
        "low": low,
        "high": high,
        "same": each.same,
        "items": each.items,
        "people": each.people,
    }
