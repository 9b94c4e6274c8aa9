"""Feedback from files into the log, and from the log to files.

An imported judgment becomes what it would be had it been given here: its completions, and the feedback on them. The
same judgments imported again are recognized and not stored twice.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from rewardloop.errors import DataError
from rewardloop.feedback.log.event_log import EventLog, LogReader
from rewardloop.feedback.log.events import NewEvent
from rewardloop.feedback.log.schema import to_json
from rewardloop.feedback.log.settled import settled_feedback
from rewardloop.feedback.log.submissions import EXTERNAL, IMPORT, feedback_event, parse_submission
from rewardloop.feedback.records import to_record
from rewardloop.types import Feedback, Preference, Prompt, Ranking

TOGETHER: Final = 200  # judgments in one transaction


@dataclass(frozen=True, slots=True)
class Stored:
    """What became of imported judgments."""

    stored: int
    known: int  # imported before
    skipped: Mapping[str, int]  # reason -> judgments


def import_into(log: EventLog, feedback: Sequence[Feedback], actor_id: str = IMPORT) -> Stored:
    """Append `feedback`. Raises StoreError; what was stored before it stays, and importing again goes on from there."""
    repeats: Counter[str] = Counter()
    outcomes: Counter[str] = Counter()
    skipped: Counter[str] = Counter()
    for start in range(0, len(feedback), TOGETHER):
        events: list[NewEvent] = []
        for judgment in feedback[start : start + TOGETHER]:
            try:
                events += import_events(judgment, actor_id, repeats)
            except DataError as error:
                skipped[str(error)] += 1
        replies = log.append(events)
        outcomes.update(
            reply.outcome for given, reply in zip(events, replies, strict=True) if given.kind == "feedback.created"
        )
    return Stored(outcomes["stored"], outcomes["replayed"], dict(skipped))


def import_events(judgment: Feedback, actor_id: str, repeats: Counter[str]) -> list[NewEvent]:
    """The events that say `judgment`; `repeats` counts equal judgments, which are different ones.

    Raises DataError for what the log does not take (an empty remark, a scale of a million steps).
    """
    values = to_record(judgment)
    digest = _digest(values)
    repeats[digest] += 1
    texts = _texts_of(judgment)
    ids = [f"import-{_digest([_plain(judgment.prompt), text])[:32]}" for text in texts]
    targets: list[dict[str, Any]] = [{"completion_id": name} for name in ids]
    about: dict[str, Any] = (
        {"targets": targets} if isinstance(judgment, Preference | Ranking) else {"target": targets[0]}
    )
    said = {name: value for name, value in values.items() if name not in _OF_COMPLETION and value is not None}
    annotator = {"annotator": {"external_id": judgment.annotator}} if judgment.annotator is not None else {}
    submission = parse_submission(said | about | annotator)
    key = f"{digest[:40]}-{repeats[digest]}"
    feedback = feedback_event(submission, actor_id, IMPORT, idem_key=key)
    answers = zip(ids, texts, strict=True)
    return [*(e for name, text in answers for e in _completion_events(name, judgment.prompt, text, actor_id)), feedback]


_OF_COMPLETION: Final = ("prompt", "annotator", "completion", "completions", "first", "second")


def _texts_of(judgment: Feedback) -> tuple[str, ...]:
    match judgment:
        case Preference(first=first, second=second):
            return first, second
        case Ranking(completions=completions):
            return completions
        case _:
            return (judgment.completion,)


def _completion_events(name: str, prompt: Prompt, text: str, actor_id: str) -> Iterator[NewEvent]:
    given: dict[str, Any] = {"actor_id": actor_id, "actor_kind": IMPORT, "target_id": name}
    yield NewEvent(kind="completion.started", body={"prompt": _plain(prompt)}, idem_key=f"{name}-s", **given)
    yield NewEvent(kind="completion.finished", body={"text": text}, idem_key=f"{name}-f", **given)


def _plain(prompt: Prompt) -> Any:
    return prompt if isinstance(prompt, str) else [asdict(turn) for turn in prompt]


def _digest(value: Any) -> str:
    return hashlib.sha256(to_json(value).encode()).hexdigest()


def export_from(log: LogReader, now: float) -> tuple[list[Feedback], tuple[int, int]]:
    """All settled judgments that stand, in order, and the range of the log that they come from.

    Annotators known to a caller only are named as the caller named them.
    """
    feedback: list[Feedback] = []
    position = 0
    while True:
        page = settled_feedback(log, position, now)
        feedback += [_with_plain_name(item.feedback) for item in page.items]
        if page.last_seq <= position:
            return feedback, (1, position)
        position = page.last_seq


def _with_plain_name(judgment: Feedback) -> Feedback:
    if judgment.annotator is None:
        return judgment
    return replace(judgment, annotator=judgment.annotator.removeprefix(EXTERNAL))
