"""The derived tables, as functions of the log: applied with each append, or rebuilt from the beginning.

Every rule below depends on sequence numbers alone, never on how many events came in one transaction. So a rebuild
gives what live appends gave.

A target that is given by external id or conversation means the latest completion that was there before the feedback,
else the first that came after it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import (
    BindParameter,
    Connection,
    ScalarSelect,
    and_,
    bindparam,
    case,
    delete,
    func,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from rewardloop.feedback.log.events import Event
from rewardloop.feedback.log.schema import applied, assignment, completion, feedback_current, feedback_target

Row = Mapping[str, Any]


def apply(connection: Connection, events: Sequence[Event]) -> None:
    """Bring the derived tables from just before `events` to just after them; `events` in order of seq."""
    if not events:
        return
    for kinds, change in _CHANGES:
        chosen = [event for event in events if event.kind in kinds]
        if chosen:
            change(connection, chosen)
    _join(connection, events)
    connection.execute(_SET_APPLIED, {"newest": events[-1].seq})


# ---------------------------------------------------------------- completions


def _see_completions(connection: Connection, events: Sequence[Event]) -> None:
    """The first event about a completion says whose it is; the first end of it stands."""
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    upsert = dialect.insert(completion)
    first_end = func.coalesce(completion.c.finished_seq, upsert.excluded.finished_seq)
    keys = [completion.c.completion_id, completion.c.choice]
    upsert = upsert.on_conflict_do_update(index_elements=keys, set_={"finished_seq": first_end})
    connection.execute(upsert, [row for event in events for row in _completion_rows(event)])


def _completion_rows(event: Event) -> list[Row]:
    finished = event.kind == "completion.finished"
    choices = [int(event.body.get("choice", 0))] if finished else range(int(event.body.get("choices", 1)))
    return [
        {
            "completion_id": event.target_id,
            "choice": choice,
            "started_seq": event.seq,
            "finished_seq": event.seq if finished else None,
            "external_id": event.body.get("external_id"),
            "conversation_id": event.conversation_id,
            "subject_id": event.subject_id or event.actor_id,
        }
        for choice in choices
    ]


# ---------------------------------------------------------------- feedback


def _add_feedback(connection: Connection, events: Sequence[Event]) -> None:
    connection.execute(insert(feedback_current), [_feedback_row(event) for event in events])
    connection.execute(insert(feedback_target), [row for event in events for row in _target_rows(event)])


def _feedback_row(event: Event) -> Row:
    return {
        "id": event.id,
        "seq": event.seq,
        "ts": event.ts,
        "kind": event.body["kind"],
        "criterion": event.body.get("criterion", "overall"),
        "subject_id": event.subject_id or event.actor_id,
        "ready_seq": None,
    }


def _target_rows(event: Event) -> list[Row]:
    return [
        {
            "feedback_id": event.id,
            "place": place,
            "seq": event.seq,
            "completion_id": target.get("completion_id"),
            "choice": target.get("choice", 0),
            "external_id": target.get("external_id"),
            "conversation_id": target.get("conversation_id"),
        }
        for place, target in enumerate(event.body.get("targets") or [event.body["target"]])
    ]


def _retract(connection: Connection, events: Sequence[Event]) -> None:
    remove_feedback(connection, [event.target_id for event in events if event.target_id])


def remove_feedback(connection: Connection, ids: Sequence[str]) -> None:
    """Feedback that no longer counts."""
    connection.execute(delete(feedback_target).where(feedback_target.c.feedback_id.in_(ids)))
    connection.execute(delete(feedback_current).where(feedback_current.c.id.in_(ids)))


# ---------------------------------------------------------------- feedback and completions find each other


def _join(connection: Connection, events: Sequence[Event]) -> None:
    """Only what the events touch is looked at: feedback may wait forever for an answer that never comes."""
    finished = [event for event in events if event.kind == "completion.finished"]
    arrived = [event for event in events if event.kind in _COMPLETION]
    feedback_ids = [event.id for event in events if event.kind == "feedback.created"]
    if not arrived and not feedback_ids:
        return
    touched = {
        "feedback": feedback_ids,
        "names": _names(event.body.get("external_id") for event in arrived),
        "talks": _names(event.conversation_id for event in finished),
    }
    if connection.scalar(_FIND_OPEN, touched) is not None:
        connection.execute(_FILL_OPEN, touched)
    ended = {"feedback": feedback_ids, "ended": _names(event.target_id for event in finished)}
    connection.execute(_SET_READY, ended)


def _names(values: Iterable[str | None]) -> list[str]:
    return sorted({value for value in values if value is not None})


def _meant() -> Any:
    """The completion that an open target means; null while there is none."""
    target = feedback_target.c
    by_name = and_(completion.c.external_id == target.external_id, completion.c.choice == target.choice)
    in_talk = and_(completion.c.conversation_id == target.conversation_id, completion.c.choice == target.choice)
    return func.coalesce(
        _nearest(by_name, completion.c.started_seq, before=True),
        _nearest(by_name, completion.c.started_seq, before=False),
        _nearest(in_talk, completion.c.finished_seq, before=True),
        _nearest(in_talk, completion.c.finished_seq, before=False),
    )


def _nearest(condition: Any, seq: Any, *, before: bool) -> ScalarSelect[Any]:
    side = seq < feedback_target.c.seq if before else seq > feedback_target.c.seq
    order = seq.desc() if before else seq.asc()
    chosen = select(completion.c.completion_id).where(condition, side).order_by(order).limit(1)
    return chosen.correlate(feedback_target).scalar_subquery()


def _ready_seq() -> Any:
    """The last of its own seq and the ends of all completions that it is about; null while one of them is open."""
    target, current = feedback_target.c, feedback_current.c
    ends = feedback_target.outerjoin(
        completion,
        and_(completion.c.completion_id == target.completion_id, completion.c.choice == target.choice),
    )
    mine = target.feedback_id == current.id
    counted = select(func.count()).select_from(ends).where(mine, completion.c.finished_seq.is_(None))
    last = select(func.max(completion.c.finished_seq)).select_from(ends).where(mine)
    is_open = counted.correlate(feedback_current).scalar_subquery() > 0
    end = last.correlate(feedback_current).scalar_subquery()
    return case((is_open, None), (end > current.seq, end), else_=current.seq)


def _any(name: str) -> BindParameter[Any]:
    return bindparam(name, expanding=True)


# Written so that no index serves "is null": what waits may be many, what the events touch is few.
_TARGET, _CURRENT = feedback_target.c, feedback_current.c
_OPEN: Final = and_(
    func.coalesce(_TARGET.completion_id, "") == "",
    or_(
        _TARGET.feedback_id.in_(_any("feedback")),
        _TARGET.external_id.in_(_any("names")),
        _TARGET.conversation_id.in_(_any("talks")),
    ),
)
_TOUCHED: Final = or_(_TARGET.feedback_id.in_(_any("feedback")), _TARGET.completion_id.in_(_any("ended")))
_COULD_BE_READY: Final = and_(
    func.coalesce(_CURRENT.ready_seq, 0) == 0,
    _CURRENT.id.in_(select(_TARGET.feedback_id).where(_TOUCHED)),
)
# Built once: with every commit it would take longer than to run them.
_SET_APPLIED: Final = update(applied).values(applied_seq=bindparam("newest"))
_FIND_OPEN: Final = select(_TARGET.seq).where(_OPEN).limit(1)
_FILL_OPEN: Final = update(feedback_target).where(_OPEN).values(completion_id=_meant())
_SET_READY: Final = update(feedback_current).where(_COULD_BE_READY).values(ready_seq=_ready_seq())


# ---------------------------------------------------------------- assignments


def _assign(connection: Connection, events: Sequence[Event]) -> None:
    rows = [
        {
            "id": event.id,
            "seq": event.seq,
            "task_id": event.body.get("task_id"),
            "annotator_id": event.body["annotator_id"],
            "lease_until": event.body["lease_until"],
            "state": "leased",
            "feedback_id": None,
        }
        for event in events
    ]
    connection.execute(insert(assignment), rows)


def _move_assignments(connection: Connection, events: Sequence[Event]) -> None:
    for event in events:
        values: dict[str, Any] = {"state": _STATES[event.kind], "feedback_id": event.body.get("feedback_id")}
        if "lease_until" in event.body:
            values["lease_until"] = event.body["lease_until"]
        connection.execute(update(assignment).where(assignment.c.id == event.target_id).values(values))


_STATES: Final = {
    "queue.answered": "answered",
    "queue.skipped": "skipped",
    "queue.expired": "expired",
    "queue.undone": "leased",
}


# In this order within one transaction: a completion before its feedback, feedback before its retraction.
_COMPLETION: Final = ("completion.started", "completion.finished")
_CHANGES: Final[Sequence[tuple[Sequence[str], Callable[[Connection, Sequence[Event]], None]]]] = (
    (_COMPLETION, _see_completions),
    (("feedback.created",), _add_feedback),
    (("feedback.retracted",), _retract),
    (("queue.assigned",), _assign),
    (tuple(_STATES), _move_assignments),
)
