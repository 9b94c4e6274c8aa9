"""Who judges, how much they agree, and how far each can be trusted; measured in the background of a request."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from rewardloop.errors import DataError
from rewardloop.feedback.agreement import Agreement, Consistency, measure_agreement, measure_consistency
from rewardloop.feedback.exclusions import Ruling, standing_exclusions
from rewardloop.feedback.log.event_log import LogReader
from rewardloop.feedback.log.events import Event
from rewardloop.feedback.log.settled import SettledFeedback, settled_feedback
from rewardloop.feedback.monitoring import detect_drift, find_straight_lines, surprise_points
from rewardloop.feedback.reliability import Reliability, measure_people
from rewardloop.types import Feedback

FRESH_S: Final = 10.0  # a measurement is good for so long
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
    straight: dict[str, str] = field(default_factory=dict)
    drifting: frozenset[str] = frozenset()
    by_kind: dict[str, Counter[str]] = field(default_factory=dict)
    daily: dict[str, list[int]] = field(default_factory=dict)


class People:
    """Keeps what was read and the last measurement."""

    def __init__(self, log: LogReader, rulings: Sequence[Ruling] = ()) -> None:
        self._log = log
        self._seen: dict[str, SettledFeedback] = {}
        self._after = 0
        self.rulings = list(rulings)
        self._measured = Measured()
        self._turn = asyncio.Lock()

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

    def _measure(self) -> Measured:
        self._read_on()
        newest = sorted(self._seen.values(), key=lambda each: each.seq)[-NEWEST:]
        feedback = [each.feedback for each in newest]
        by_kind: dict[str, Counter[str]] = defaultdict(Counter)
        daily: dict[str, list[int]] = defaultdict(lambda: [0] * DAYS)
        today = int(time.time() // DAY_S)
        for each in newest:
            by_kind[each.annotator or NAMELESS][type(each.feedback).__name__.lower()] += 1
            if (age := today - int(each.ts // DAY_S)) < DAYS:
                daily[each.annotator or NAMELESS][DAYS - 1 - age] += 1
        reliability, drifting = _trust(feedback)
        return Measured(
            at=time.time(),
            agreement=measure_agreement(feedback),
            reliability=reliability,
            consistency={each.annotator: each for each in measure_consistency(feedback)},
            straight={
                line.annotator: f"{line.answer} x {line.length}"
                for line in find_straight_lines(feedback)
                if line.suspicious
            },
            drifting=drifting,
            by_kind=dict(by_kind),
            daily=dict(daily),
        )

    def _read_on(self) -> None:
        while True:
            page = settled_feedback(self._log, self._after, time.time(), settling_s=0)
            self._seen |= {each.id: each for each in page.items}
            for gone in page.withdrawn:
                self._seen.pop(gone, None)
            if page.last_seq == self._after:
                return
            self._after = page.last_seq


def _trust(feedback: Sequence[Feedback]) -> tuple[dict[str, Reliability], frozenset[str]]:
    """Everybody's numbers, and whose have changed; nothing while the judgments say nothing."""
    try:
        fit = measure_people(feedback)
    except DataError:
        return {}, frozenset()
    known = {each.annotator: each for each in fit.reliabilities()}
    drifting = {name for name in known if detect_drift(surprise_points(feedback, name, fit)).alarm is not None}
    return known, frozenset(drifting)


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
