"""Events as the log takes and gives them, and the set of their kinds."""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from rewardloop.errors import DataError
from rewardloop.feedback.log.schema import ID, NAME, Encoded, to_json

# Every kind of event, and what it says. A new kind is a new line here.
KINDS: Final[Mapping[str, str]] = {
    "conversation.started": "a conversation was opened; body: title",
    "conversation.deleted": "its owner removed it from the list",
    "completion.started": "sampling began, before the first token left; body: prompt, model, sampling, choices",
    "completion.finished": "one choice is complete; body: choice, text, finish_reason; arrays",
    "completion.failed": "the engine could not finish it; body: reason",
    "criterion.declared": "a criterion and its scale; body: name, scale, description",
    "feedback.created": "a judgment; body: submissions.py",
    "feedback.retracted": "target_id was taken back",
    "queue.task_created": "work for annotators; body: task, prompts, overlap",
    "queue.task_deleted": "no more of it is handed out",
    "queue.assigned": "a lease; body: task_id, annotator_id, lease_until",
    "queue.answered": "the assignment target_id was answered; body: feedback_id",
    "queue.skipped": "the assignment target_id was skipped; body: reason",
    "queue.expired": "the lease of the assignment target_id ran out",
    "queue.decided": "a verdict where people disagreed about the completion target_id; body: feedback_id",
    "queue.undone": "the assignment target_id is open again; body: lease_until",
    "annotator.excluded": "target_id no longer counts; body: reason",
    "annotator.included": "target_id counts again",
    "annotator.gold": "an answer to a gold item; body: expected, given",
    "subject.erased": "the data of a person are gone; body: events, completions, feedback",
    "erased": "an event that was emptied with the data of a person",
    "settings.changed": "settings changed; body: what is set",
    "auth.account_created": "somebody joined; body: name, role",
    "auth.account_changed": "an account changed; body: what",
    "auth.invited": "somebody was invited; body: role",
    "auth.invitation_revoked": "target_id is no longer good",
    "auth.key_created": "an API key was made; body: name, scopes, digest",
    "auth.key_revoked": "target_id is no longer good",
    "auth.login": "somebody came in",
    "auth.logout": "somebody left",
    "auth.refused": "a login failed; body: reason",
    "policy.published": "weights are there; body: version, digest",
    "policy.activated": "weights are being served; body: version",
    "policy.rolled_back": "earlier weights are being served again; body: version, reason",
    "policy.gated": "a gate let weights pass or held them; body: version, passed, reasons",
    "policy.alarm": "something about the policy needs eyes; body: name, text, version, metrics",
    "policy.paused": "learning rests; body: reason",
    "policy.resumed": "learning goes on; body: reason",
    "data.exported": "feedback was exported; body: layout, counts, sha256",
    "data.imported": "feedback was imported; body: counts",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class NewEvent:
    """What a caller gives. `subject_id`: whose words these are, where the actor speaks for somebody else."""

    kind: str
    actor_id: str
    actor_kind: str
    body: Mapping[str, Any] = field(default_factory=dict)
    target_id: str | None = None
    conversation_id: str | None = None
    subject_id: str | None = None
    idem_key: str | None = None
    arrays: bytes | None = None  # arrays.py
    encoded: Encoded = field(init=False, repr=False, compare=False)  # the body as it is stored

    def __post_init__(self) -> None:
        """Raises DataError for what cannot be stored."""
        if self.kind not in KINDS:
            raise DataError(f"an event of kind {self.kind!r}; known are {', '.join(KINDS)}")
        for name in ("actor_id", "target_id", "conversation_id", "subject_id", "idem_key"):
            check_name(name, getattr(self, name))
        check_name("actor_kind", self.actor_kind, ID.length)
        try:
            object.__setattr__(self, "encoded", to_json(self.body))
        except (TypeError, ValueError) as error:
            raise DataError(f"the body of a {self.kind} is not JSON: {error}") from error

    @property
    def payload_hash(self) -> str:
        """SHA-256 over everything that makes two requests the same."""
        about = to_json([self.kind, self.target_id, self.conversation_id, self.subject_id])
        parts = f"{about[:-1]},{self.encoded}]"
        return hashlib.sha256(parts.encode() + (self.arrays or b"")).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """What the log gives back."""

    seq: int
    id: str
    ts: float  # seconds since 1970
    kind: str
    actor_id: str
    actor_kind: str
    subject_id: str | None
    target_id: str | None
    conversation_id: str | None
    body: dict[str, Any]
    idem_key: str | None


def stored_event(given: NewEvent, *, seq: int, event_id: str, ts: float) -> Event:
    """`given` as the log has it once it is stored."""
    return Event(
        seq=seq,
        id=event_id,
        ts=ts,
        kind=given.kind,
        actor_id=given.actor_id,
        actor_kind=given.actor_kind,
        subject_id=given.subject_id,
        target_id=given.target_id,
        conversation_id=given.conversation_id,
        body=dict(given.body),
        idem_key=given.idem_key,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Appended:
    """What became of an event: stored now, or stored before under the same idempotency key."""

    seq: int
    id: str
    ts: float
    outcome: Literal["stored", "replayed"]
    waiting: bool = False  # feedback about something that was not there yet when it came


def check_name(what: str, value: str | None, longest: int | None = NAME.length) -> None:
    """Raises DataError unless `value` is None or a short text without control characters."""
    if value is None:
        return
    if not isinstance(value, str) or not value or len(value) > (longest or 0) or not value.isprintable():
        shown = f"{len(value)} characters" if isinstance(value, str) else type(value).__name__
        raise DataError(f"{what} must be 1 to {longest} printable characters, given {shown}")


_CHANCE: Final = random.Random()  # seeded by the system; to ask the system each time gives up the interpreter


def new_id(now_s: float | None = None) -> str:
    """A UUID of version 7 (RFC 9562, section 5.7): milliseconds since 1970, then 74 random bits; no secret."""
    milliseconds = int((time.time() if now_s is None else now_s) * 1000)
    number = (milliseconds << 80) | _CHANCE.getrandbits(80)
    number = (number & ~(0xF << 76)) | (0x7 << 76)
    number = (number & ~(0x3 << 62)) | (0x2 << 62)
    text = f"{number:032x}"
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))
