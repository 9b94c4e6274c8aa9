"""The first schema: the log, and what is derived from it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

NAME, ID = sa.String(200), sa.String(64)


def upgrade() -> None:
    _create_log()
    _create_completion()
    _create_feedback()
    _create_assignment()
    applied = op.create_table("applied", sa.Column("applied_seq", sa.BigInteger, primary_key=True, autoincrement=False))
    op.bulk_insert(applied, [{"applied_seq": 0}])


def _create_log() -> None:
    op.create_table(
        "event",
        sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("id", ID, nullable=False, unique=True),
        sa.Column("ts", sa.Float(53), nullable=False),
        sa.Column("actor_id", NAME, nullable=False),
        sa.Column("actor_kind", ID, nullable=False),
        sa.Column("subject_id", NAME),
        sa.Column("kind", ID, nullable=False),
        sa.Column("target_id", NAME),
        sa.Column("conversation_id", NAME),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("idem_key", NAME),
        sa.Column("payload_hash", sa.String(64)),
        sa.UniqueConstraint("actor_id", "idem_key", name="uq_event_actor_idem_key"),
    )
    for name, column in (
        ("kind", "kind"),
        ("target", "target_id"),
        ("conversation", "conversation_id"),
        ("subject", "subject_id"),
    ):
        op.create_index(f"ix_event_{name}", "event", [column, "seq"])
    op.create_table(
        "blob",
        sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("bytes", sa.LargeBinary, nullable=False),
    )


def _create_completion() -> None:
    op.create_table(
        "completion",
        sa.Column("completion_id", NAME, primary_key=True),
        sa.Column("choice", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("started_seq", sa.BigInteger, nullable=False),
        sa.Column("finished_seq", sa.BigInteger),
        sa.Column("external_id", NAME),
        sa.Column("conversation_id", NAME),
        sa.Column("subject_id", NAME),
    )
    op.create_index("ix_completion_external", "completion", ["external_id", "started_seq"])
    op.create_index("ix_completion_conversation", "completion", ["conversation_id", "finished_seq"])
    op.create_index("ix_completion_subject", "completion", ["subject_id"])


def _create_feedback() -> None:
    op.create_table(
        "feedback_current",
        sa.Column("id", ID, primary_key=True),
        sa.Column("seq", sa.BigInteger, nullable=False, unique=True),
        sa.Column("ts", sa.Float(53), nullable=False),
        sa.Column("kind", ID, nullable=False),
        sa.Column("criterion", NAME, nullable=False),
        sa.Column("subject_id", NAME, nullable=False),
        sa.Column("ready_seq", sa.BigInteger),
    )
    op.create_index("ix_feedback_ready", "feedback_current", ["ready_seq", "seq"])
    op.create_index("ix_feedback_subject", "feedback_current", ["subject_id"])
    op.create_table(
        "feedback_target",
        sa.Column("feedback_id", ID, primary_key=True),
        sa.Column("place", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("completion_id", NAME),
        sa.Column("choice", sa.Integer, nullable=False),
        sa.Column("external_id", NAME),
        sa.Column("conversation_id", NAME),
    )
    op.create_index("ix_feedback_target_completion", "feedback_target", ["completion_id", "choice"])
    op.create_index("ix_feedback_target_external", "feedback_target", ["external_id"])
    op.create_index("ix_feedback_target_conversation", "feedback_target", ["conversation_id"])


def _create_assignment() -> None:
    op.create_table(
        "assignment",
        sa.Column("id", ID, primary_key=True),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("task_id", NAME),
        sa.Column("annotator_id", NAME, nullable=False),
        sa.Column("lease_until", sa.Float(53), nullable=False),
        sa.Column("state", ID, nullable=False),
        sa.Column("feedback_id", ID),
    )
    op.create_index("ix_assignment_task", "assignment", ["task_id"])
    op.create_index("ix_assignment_annotator", "assignment", ["annotator_id", "state"])
