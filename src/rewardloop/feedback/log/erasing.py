"""Erasing one person: no words of theirs are left in the database, its copies, or exports made from it.

Whose data are they? All that the person did or that was done in their name; all completions that they asked for and the
conversations these stand in, with everything that anybody said about them.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, and_, delete, false, func, or_, select, update

from rewardloop.feedback.log.database import database_file, is_sqlite, writing
from rewardloop.feedback.log.derived import remove_feedback
from rewardloop.feedback.log.event_log import EventLog
from rewardloop.feedback.log.events import NewEvent
from rewardloop.feedback.log.failures import StoreUnavailableError, translated
from rewardloop.feedback.log.migrating import BACKUPS
from rewardloop.feedback.log.schema import assignment, blob, completion, event, feedback_current, feedback_target

EXPORTS: Final = "exports"  # folder of the data directory
NOBODY: Final = "erased"

# What the person said or asked for. Other deeds (a setting, a retraction, the exclusion of an annotator) stay in force,
# without a name.
_PERSONAL: Final = (
    "conversation.%",
    "completion.%",
    "feedback.created",
    "queue.assigned",
    "queue.answered",
    "queue.skipped",
    "queue.expired",
    "queue.undone",
    "annotator.%",
    "auth.%",
)


@dataclass(frozen=True, slots=True)
class Erased:
    """What was done."""

    events: int
    completions: int
    feedback: tuple[str, ...]  # ids
    files: tuple[Path, ...]  # copies and exports that held the data, and were removed


def erase_subject(log: EventLog, subject_id: str, actor_id: str, actor_kind: str = "user") -> Erased:
    """Erase the person `subject_id`, at the wish of `actor_id`. Learners hear of it by `subject.erased`.

    Copies of the database from before migrations and exports under `exports/` are removed whole: make them anew.
    Raises StoreUnavailableError where a reader kept old pages in use for too long; everything is erased from view
    then, and calling again finishes it.
    """
    with log.exclusive(), writing(log.writer) as connection:
        completions, conversations = _completions_of(connection, subject_id)
        feedback = _feedback_of(connection, subject_id, completions)
        theirs = _events_of(subject_id, completions, conversations, feedback)
        events = int(connection.scalar(select(func.count()).select_from(event).where(theirs)) or 0)
        _rewrite(connection, subject_id, theirs)
        _remove_derived(connection, subject_id, completions, feedback)
    body = {"events": events, "completions": len(completions), "feedback": sorted(feedback)}
    who = NOBODY if actor_id == subject_id else actor_id
    log.append([NewEvent(kind="subject.erased", actor_id=who, actor_kind=actor_kind, body=body)])
    files = _remove_copies(log.url)
    _wipe(log)
    return Erased(events, len(completions), tuple(sorted(feedback)), files)


def _completions_of(connection: Connection, subject_id: str) -> tuple[list[str], list[str]]:
    """Ids of completions, and of the conversations in which the person took part as the one who asked."""
    mine = completion.c.subject_id == subject_id
    talks = set(connection.scalars(select(completion.c.conversation_id).where(mine).distinct()))
    opened = and_(event.c.kind == "conversation.started", _by(subject_id))
    talks |= set(connection.scalars(select(event.c.conversation_id).where(opened).distinct()))
    conversations = sorted(talk for talk in talks if talk is not None)
    within = or_(mine, completion.c.conversation_id.in_(conversations))
    return sorted(set(connection.scalars(select(completion.c.completion_id).where(within)))), conversations


def _feedback_of(connection: Connection, subject_id: str, completions: Sequence[str]) -> list[str]:
    """Ids of feedback by the person or about their completions."""
    target = feedback_target.c
    about = select(target.feedback_id).where(target.completion_id.in_(completions))
    by = select(feedback_current.c.id).where(feedback_current.c.subject_id == subject_id)
    return sorted({*connection.scalars(about), *connection.scalars(by)})


def _by(subject_id: str) -> ColumnElement[bool]:
    return or_(event.c.actor_id == subject_id, event.c.subject_id == subject_id)


def _events_of(
    subject_id: str, completions: Sequence[str], conversations: Sequence[str], feedback: Sequence[str]
) -> ColumnElement[bool]:
    assigned = select(assignment.c.id).where(assignment.c.annotator_id == subject_id)
    return or_(
        _by(subject_id),
        event.c.id.in_(assigned),
        event.c.target_id.in_(assigned),
        event.c.target_id == subject_id,
        event.c.target_id.in_(completions),
        event.c.conversation_id.in_(conversations) if conversations else false(),
        event.c.id.in_(feedback),
    )


def _rewrite(connection: Connection, subject_id: str, theirs: ColumnElement[bool]) -> None:
    """Empty their words; take their name from what stays."""
    personal = and_(theirs, or_(*(event.c.kind.like(kind) for kind in _PERSONAL)))
    seqs = list(connection.scalars(select(event.c.seq).where(personal)))
    connection.execute(delete(blob).where(blob.c.seq.in_(seqs)))
    nameless: dict[str, Any] = {"actor_id": NOBODY, "subject_id": None, "idem_key": None, "payload_hash": None}
    emptied: dict[str, Any] = {"kind": "erased", "body": {}, "target_id": None, "conversation_id": None}
    connection.execute(update(event).where(event.c.seq.in_(seqs)).values({**nameless, **emptied}))
    connection.execute(update(event).where(_by(subject_id)).values(nameless))


def _remove_derived(
    connection: Connection, subject_id: str, completions: Sequence[str], feedback: Sequence[str]
) -> None:
    remove_feedback(connection, feedback)
    connection.execute(delete(completion).where(completion.c.completion_id.in_(completions)))
    connection.execute(delete(assignment).where(assignment.c.annotator_id == subject_id))


# ---------------------------------------------------------------- files


def _remove_copies(url: str) -> tuple[Path, ...]:
    if not is_sqlite(url):
        return ()
    folder = database_file(url).parent
    found = [path for name in (BACKUPS, EXPORTS) if (folder / name).is_dir() for path in (folder / name).iterdir()]
    for path in found:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return tuple(found)


def _wipe(log: EventLog) -> None:
    """Leave no old page behind: rewrite the file, empty the write-ahead log."""
    with log.exclusive(), translated(log.url):
        if not is_sqlite(log.url):
            with log.writer.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                for table in (event, blob, completion, feedback_current, feedback_target, assignment):
                    connection.exec_driver_sql(f"VACUUM FULL {table.name}")
            return
        checked_out = log.writer.raw_connection()
        try:
            plain = checked_out.driver_connection
            assert plain is not None
            plain.execute("VACUUM")
            busy, *_ = plain.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        finally:
            checked_out.close()
    if busy:
        raise StoreUnavailableError("a reader still uses old pages of the database; erase again when it has ended")
