"""What a learner reads: feedback that has settled, with the completions that it is about.

    page = settled_feedback(log, after=generation.last_seq, now=time.time())
    ... learn from page.items, forget page.withdrawn, keep page.last_seq with what was learned

Feedback is given out once it is complete (every completion that it is about is finished) and older than the settling
time, in which a slip of the finger can be undone without a trace. Positions are `ready_seq`, so that a thumb that
waited for its answer is not missed by a reader who had passed the place where it was sent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Final

from sqlalchemy import Connection, and_, func, select

from rewardloop.errors import DataError
from rewardloop.feedback.log.arrays import Sampled, unpack
from rewardloop.feedback.log.database import reading
from rewardloop.feedback.log.event_log import EVENT_COLUMNS, LogReader, as_event, last_seq
from rewardloop.feedback.log.events import Event
from rewardloop.feedback.log.judgments import StoredCompletion, judgment_of, stored_completion
from rewardloop.feedback.log.schema import blob, completion, event, feedback_current, feedback_target
from rewardloop.feedback.log.submissions import IMPORT, parse_submission
from rewardloop.types import Feedback

SETTLING_S: Final = 3.0

Choice = tuple[str, int]  # completion id, number of the choice


@dataclass(frozen=True, slots=True, eq=False)
class SettledFeedback:
    """One judgment, with everything needed to learn from it."""

    id: str
    seq: int
    ready_seq: int
    ts: float
    annotator: str | None  # None: an imported judgment whose annotator is not known
    feedback: Feedback
    completions: tuple[StoredCompletion, ...]  # in the order shown


@dataclass(frozen=True, slots=True, eq=False)
class SettledPage:
    """What is new between two positions of the log."""

    items: tuple[SettledFeedback, ...]
    withdrawn: tuple[str, ...]  # ids of feedback that was retracted or erased since; forget them
    unusable: Mapping[str, str]  # id -> why the judgment does not fit its completions
    last_seq: int  # where to go on


def settled_feedback(
    log: LogReader, after: int, now: float, settling_s: float = SETTLING_S, limit: int = 1000
) -> SettledPage:
    """Feedback that became ready after position `after` and has settled by `now` (seconds since 1970).

    At most about `limit` judgments (those that became ready with one event are not parted). The same log, `after` and
    `last_seq` give the same page, but for what was withdrawn since.
    """
    with reading(log.reader) as connection:
        end = _settled_until(connection, after, now, settling_s)
        rows = _ready_rows(connection, after, end, limit)
        if len(rows) >= limit:
            end = rows[-1].ready_seq
        completions = load_completions(connection, _choices(connection, [row.id for row in rows]))
        items, unusable = _join(connection, rows, completions)
        withdrawn = _withdrawn(connection, after, end)
    return SettledPage(tuple(items), tuple(withdrawn), unusable, end)


def before_newest(log: LogReader, count: int) -> int:
    """The position to read after, to get the `count` judgments that became ready last, and what did so with them."""
    ready = feedback_current.c.ready_seq
    query = select(ready).where(ready.is_not(None)).order_by(ready.desc()).limit(1).offset(count - 1)
    with reading(log.reader) as connection:
        first = connection.scalar(query)
    return 0 if first is None else int(first) - 1


def _settled_until(connection: Connection, after: int, now: float, settling_s: float) -> int:
    """The last position before which everything has settled.

    By distance in time in both directions: a clock that was set back must not hold up feedback until it has caught up.
    """
    age = func.abs(now - feedback_current.c.ts)
    ready = feedback_current.c.ready_seq
    first_open = connection.scalar(select(func.min(ready)).where(ready > after, age < settling_s))
    return last_seq(connection) if first_open is None else int(first_open) - 1


def _ready_rows(connection: Connection, after: int, end: int, limit: int) -> Sequence[Any]:
    current = feedback_current.c
    columns = (current.id, current.ready_seq, *(c for c in EVENT_COLUMNS if c.key != "id"))
    ordered = (
        select(*columns)
        .join_from(feedback_current, event, event.c.seq == current.seq)
        .where(current.ready_seq > after, current.ready_seq <= end)
        .order_by(current.ready_seq, current.seq)
    )
    rows = connection.execute(ordered.limit(limit)).all()
    if len(rows) < limit:
        return rows
    same = and_(current.ready_seq == rows[-1].ready_seq, current.seq > rows[-1].seq)
    return [*rows, *connection.execute(ordered.where(same)).all()]


def _choices(connection: Connection, feedback_ids: Sequence[str]) -> list[Choice]:
    target = feedback_target.c
    query = select(target.completion_id, target.choice).where(target.feedback_id.in_(feedback_ids)).distinct()
    return [(row.completion_id, row.choice) for row in connection.execute(query)]


def _join(
    connection: Connection, rows: Sequence[Any], completions: Mapping[Choice, StoredCompletion]
) -> tuple[list[SettledFeedback], dict[str, str]]:
    target = feedback_target.c
    ids = [row.id for row in rows]
    query = select(target.feedback_id, target.completion_id, target.choice).where(target.feedback_id.in_(ids))
    ordered = connection.execute(query.order_by(target.feedback_id, target.place))
    about = {
        feedback_id: tuple(completions[row.completion_id, row.choice] for row in group)
        for feedback_id, group in groupby(ordered, key=lambda row: row.feedback_id)
    }
    items: list[SettledFeedback] = []
    unusable: dict[str, str] = {}
    for row in rows:
        annotator = row.subject_id or (None if row.actor_kind == IMPORT else row.actor_id)
        try:
            feedback = judgment_of(parse_submission(row.body), about[row.id], annotator)
        except DataError as error:
            unusable[row.id] = str(error)
            continue
        items.append(SettledFeedback(row.id, row.seq, row.ready_seq, row.ts, annotator, feedback, about[row.id]))
    return items, unusable


def _withdrawn(connection: Connection, after: int, end: int) -> list[str]:
    kinds = ("feedback.retracted", "subject.erased")
    between = and_(event.c.kind.in_(kinds), event.c.seq > after, event.c.seq <= end)
    rows = connection.execute(select(*EVENT_COLUMNS).where(between).order_by(event.c.seq))
    found: list[str] = []
    for one in map(as_event, rows):
        found += [one.target_id] if one.target_id else one.body.get("feedback", [])
    return found


# ---------------------------------------------------------------- completions


def load_completion(log: LogReader, completion_id: str, choice: int = 0) -> StoredCompletion | None:
    """One completion; None where it is unknown, or not finished."""
    with reading(log.reader) as connection:
        return load_completions(connection, [(completion_id, choice)]).get((completion_id, choice))


def load_completions(connection: Connection, choices: Sequence[Choice]) -> dict[Choice, StoredCompletion]:
    """The finished ones among `choices`."""
    ids = sorted({completion_id for completion_id, _ in choices})
    wanted = set(choices)
    known = completion.c
    query = select(known.completion_id, known.choice, known.started_seq, known.finished_seq)
    rows = [
        row
        for row in connection.execute(query.where(known.completion_id.in_(ids), known.finished_seq.is_not(None)))
        if (row.completion_id, row.choice) in wanted
    ]
    seqs = {seq for row in rows for seq in (row.started_seq, row.finished_seq)}
    events = _events_at(connection, sorted(seqs))
    blobs = connection.execute(select(blob.c.seq, blob.c.bytes).where(blob.c.seq.in_(sorted(seqs))))
    sampled = {row.seq: unpack(row.bytes) for row in blobs}
    return {
        (row.completion_id, row.choice): stored_completion(
            events[row.started_seq], events[row.finished_seq], sampled.get(row.finished_seq, Sampled.empty())
        )
        for row in rows
    }


def _events_at(connection: Connection, seqs: Sequence[int]) -> dict[int, Event]:
    rows = connection.execute(select(*EVENT_COLUMNS).where(event.c.seq.in_(seqs)))
    return {found.seq: found for found in map(as_event, rows)}
