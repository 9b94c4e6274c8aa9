"""Tables of the database. `event` and `blob` are the truth; the others are derived and can be rebuilt from them.

A change here needs a migration in feedback/migrations/versions and a new HEAD.
"""

from __future__ import annotations

import json
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Column,
    Dialect,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
)

HEAD: Final = "0001"  # the newest migration, which these tables are the result of


class Json(TypeDecorator[Any]):
    """JSON as text that we write ourselves: PostgreSQL's own type refuses characters that people can type."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str:
        return value if isinstance(value, Encoded) else to_json(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        return json.loads(value)


class Encoded(str):
    """A value that is JSON text already."""

    __slots__ = ()


def to_json(value: Any) -> Encoded:
    """Compact JSON with sorted names: equal values give equal text. Raises ValueError for NaN and infinities."""
    text = _JSON.encode(value)
    if text.isascii():
        return Encoded(text)
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON allows and UTF-8 does not
        return Encoded(_ASCII_JSON.encode(value))
    return Encoded(text)


# json.dumps would make one for every call
_JSON: Final = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False)
_ASCII_JSON: Final = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)

NAME = String(200)  # what a caller may choose: external ids, idempotency keys, names of criteria
ID = String(64)

metadata = MetaData()

event = Table(
    "event",
    metadata,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),  # 1, 2, 3 ... without gaps
    Column("id", ID, nullable=False, unique=True),  # UUID version 7
    Column("ts", Float(53), nullable=False),  # seconds since 1970, by the clock of the writer
    Column("actor_id", NAME, nullable=False),  # who did it: an account, an API key, "engine"
    Column("actor_kind", ID, nullable=False),  # user, key, token, engine, learner, system
    Column("subject_id", NAME),  # whose words these are, where that is somebody else than the actor
    Column("kind", ID, nullable=False),
    Column("target_id", NAME),  # what it is about: a completion, a feedback, an assignment
    Column("conversation_id", NAME),
    Column("body", Json, nullable=False),
    Column("idem_key", NAME),
    Column("payload_hash", String(64)),  # SHA-256 of all that the caller gave; for events with an idem_key
    UniqueConstraint("actor_id", "idem_key", name="uq_event_actor_idem_key"),
    Index("ix_event_kind", "kind", "seq"),
    Index("ix_event_target", "target_id", "seq"),
    Index("ix_event_conversation", "conversation_id", "seq"),
    Index("ix_event_subject", "subject_id", "seq"),
)

blob = Table(
    "blob",
    metadata,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),  # of the event it belongs to
    Column("bytes", LargeBinary, nullable=False),  # arrays.py
)

completion = Table(
    "completion",
    metadata,
    Column("completion_id", NAME, primary_key=True),
    Column("choice", Integer, primary_key=True, autoincrement=False),
    Column("started_seq", BigInteger, nullable=False),
    Column("finished_seq", BigInteger),
    Column("external_id", NAME),
    Column("conversation_id", NAME),
    Column("subject_id", NAME),
    Index("ix_completion_external", "external_id", "started_seq"),
    Index("ix_completion_conversation", "conversation_id", "finished_seq"),
    Index("ix_completion_subject", "subject_id"),
)

feedback_current = Table(
    "feedback_current",
    metadata,
    Column("id", ID, primary_key=True),  # of the event; retracted feedback is not here
    Column("seq", BigInteger, nullable=False, unique=True),
    Column("ts", Float(53), nullable=False),
    Column("kind", ID, nullable=False),
    Column("criterion", NAME, nullable=False),
    Column("subject_id", NAME, nullable=False),
    # The event that made it complete: its own, or the end of the last completion that it is about. Null: it waits.
    Column("ready_seq", BigInteger),
    Index("ix_feedback_ready", "ready_seq", "seq"),
    Index("ix_feedback_subject", "subject_id"),
)

feedback_target = Table(
    "feedback_target",
    metadata,
    Column("feedback_id", ID, primary_key=True),
    Column("place", Integer, primary_key=True, autoincrement=False),  # order in which they were shown
    Column("seq", BigInteger, nullable=False),  # of the feedback
    Column("completion_id", NAME),  # null: not known yet
    Column("choice", Integer, nullable=False),
    Column("external_id", NAME),
    Column("conversation_id", NAME),
    Index("ix_feedback_target_completion", "completion_id", "choice"),
    Index("ix_feedback_target_external", "external_id"),
    Index("ix_feedback_target_conversation", "conversation_id"),
)

assignment = Table(
    "assignment",
    metadata,
    Column("id", ID, primary_key=True),  # of the event queue.assigned
    Column("seq", BigInteger, nullable=False),
    Column("task_id", NAME),
    Column("annotator_id", NAME, nullable=False),
    Column("lease_until", Float(53), nullable=False),  # seconds since 1970
    Column("state", ID, nullable=False),  # leased, answered, skipped, expired
    Column("feedback_id", ID),
    Index("ix_assignment_task", "task_id"),
    Index("ix_assignment_annotator", "annotator_id", "state"),
)

applied = Table(
    "applied",
    metadata,
    Column("applied_seq", BigInteger, primary_key=True, autoincrement=False),  # one row: the derived tables hold it
)

DERIVED: Final = (completion, feedback_current, feedback_target, assignment)
