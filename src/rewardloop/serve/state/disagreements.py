"""Where people judged an item of the queue differently, and what was decided about it.

Choices differ where another text won, ratings where they lie two steps or more apart, corrections where one person left
alone what another changed: two corrections of a text are seldom alike, and both may be good.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import select

from rewardloop.feedback.log.database import reading
from rewardloop.feedback.log.event_log import EVENT_COLUMNS, LogReader, as_event
from rewardloop.feedback.log.events import Event
from rewardloop.feedback.log.schema import event, feedback_current
from rewardloop.serve.state.queue import Met, TaskKind

FAR: Final = 2  # steps of a scale
AT_ONCE: Final = 500  # ids in one question to the database
_OTHER: Final = {"first": "second", "second": "first"}


@dataclass(frozen=True, slots=True)
class Said:
    """One judgment of an item: `first` and `second` are its answers in the order of their choices, whatever side
    they were shown on."""

    annotator: str
    ts: float
    field: str  # as an answer of the queue names it: choice, value, corrected
    value: str | int
    comment: str | None

    @staticmethod
    def of(judgment: Event) -> Said:
        body = judgment.body
        field = {"preference": "choice", "rating": "value", "edit": "corrected"}[body["kind"]]
        value = body[field]
        if field == "choice" and body["targets"][0].get("choice", 0) == 1:
            value = _OTHER.get(value, value)
        return Said(judgment.actor_id, judgment.ts, field, value, body.get("metadata", {}).get("comment"))


@dataclass(frozen=True, slots=True)
class Disagreement:
    """An item, what each person said about it, and the verdict if there is one that stands."""

    item: Met
    said: tuple[Said, ...]
    verdict: Said | None


def find_disagreements(log: LogReader, met: Sequence[Met], excluded: Collection[str]) -> list[Disagreement]:
    """Those among `met` on which people disagree. What was taken back, and who is excluded, does not count."""
    ids = [name for item in met for name in (*item.judged.values(), item.verdict) if name is not None]
    standing = _standing(log, ids)
    found = []
    for item in met:
        said = [
            Said.of(standing[name])
            for annotator, name in item.judged.items()
            if name in standing and annotator not in excluded
        ]
        if differ(item.task.kind, [each.value for each in said], item.texts[0]):
            verdict = standing.get(item.verdict or "")
            found.append(Disagreement(item, tuple(said), None if verdict is None else Said.of(verdict)))
    return found


def differ(kind: TaskKind, values: Sequence[Any], text: str) -> bool:
    """Whether `values` of several people are at odds; `text` is what was corrected."""
    if len(values) < 2:
        return False
    if kind == "rate":
        return bool(max(values) - min(values) >= FAR)
    return len({value == text for value in values} if kind == "edit" else set(values)) > 1


def _standing(log: LogReader, ids: Sequence[str]) -> Mapping[str, Event]:
    """The judgments among `ids` that were not taken back."""
    found: dict[str, Event] = {}
    query = select(*EVENT_COLUMNS).join_from(feedback_current, event, event.c.seq == feedback_current.c.seq)
    with reading(log.reader) as connection:
        for start in range(0, len(ids), AT_ONCE):
            rows = connection.execute(query.where(feedback_current.c.id.in_(ids[start : start + AT_ONCE])))
            found |= {each.id: each for each in map(as_event, rows)}
    return found
