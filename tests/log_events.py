"""Short ways to write events, for the tests of the log."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from rewardloop.feedback.log.arrays import Sampled, pack
from rewardloop.feedback.log.event_log import EventLog
from rewardloop.feedback.log.events import NewEvent
from rewardloop.feedback.log.schema import DERIVED
from rewardloop.feedback.log.submissions import feedback_event, parse_submission

PROMPT = [{"role": "user", "content": "Where can I buy honey?"}]


def started(completion: str, *, external: str | None = None, talk: str | None = None, **more: Any) -> NewEvent:
    body = {"prompt": PROMPT, "model": "town", "sampling": {"temperature": 0.5}, **more}
    return NewEvent(
        kind="completion.started",
        actor_id="key-1",
        actor_kind="key",
        target_id=completion,
        conversation_id=talk,
        body=body | ({"external_id": external} if external else {}),
    )


def finished(
    completion: str,
    text: str = "At the mill.",
    *,
    choice: int = 0,
    external: str | None = None,
    talk: str | None = None,
) -> NewEvent:
    """Every character is a token."""
    body = {"choice": choice, "text": text, "finish_reason": "stop"}
    return NewEvent(
        kind="completion.finished",
        actor_id="key-1",
        actor_kind="key",
        target_id=completion,
        conversation_id=talk,
        body=body | ({"external_id": external} if external else {}),
        arrays=pack(sampled(text)),
    )


def sampled(text: str) -> Sampled:
    count = len(text)
    return Sampled(
        np.arange(3, dtype=np.int32),
        np.arange(count, dtype=np.int32),
        -np.arange(count, dtype=np.float32) / 8,
        np.full(count, 7, dtype=np.int32),
        np.arange(1, count + 1, dtype=np.int32),
    )


def said(target: dict[str, Any] | str, *, by: str = "ann", key: str | None = None, **values: Any) -> NewEvent:
    """A judgment, a thumb up if nothing else is given, about a completion (by its id) or another target."""
    place = {"completion_id": target} if isinstance(target, str) else target
    given = {"kind": "rating", "value": 1, "scale": {"low": 0, "high": 1}} if "kind" not in values else {}
    whole = given | values if "targets" in values else {"target": place} | given | values
    return feedback_event(parse_submission(whole), by, "user", idem_key=key)


def retracted(feedback: str, *, by: str = "ann", key: str | None = None) -> NewEvent:
    return NewEvent(kind="feedback.retracted", actor_id=by, actor_kind="user", target_id=feedback, idem_key=key)


def derived(log: EventLog) -> list[list[Sequence[Any]]]:
    """Everything in the derived tables."""
    with log.reader.connect() as connection:
        return [
            [tuple(row) for row in connection.execute(table.select().order_by(*table.primary_key.columns))]
            for table in DERIVED
        ]
