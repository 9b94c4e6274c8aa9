"""Versions of the policy: which there are, what was found of each, which one is served. From `policy.*` events.

A judgment is *learned* when a version with `last_seq` at or beyond the place where it became ready is published, *live*
when such a version is active. Version 0 is the model as it was given; it is always there.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from rewardloop.errors import StoreError
from rewardloop.feedback.log.event_log import LogReader
from rewardloop.feedback.log.events import KINDS, Event, NewEvent
from rewardloop.loop.manifests import (
    Manifest,
    active_version,
    list_versions,
    manifest_path,
    read_manifest,
    set_active,
)
from rewardloop.serve.edge.access import Caller
from rewardloop.serve.edge.errors import ApiError

GIVEN: Final = 0  # the version of the model as it was given
LEARNER: Final = "learner"  # the operator that publishes versions
MOST_ALARMS: Final = 50
MOST_LISTED: Final = 100  # versions that are gone, in one answer

PUBLISHED: Final = "policy.published"
GATED: Final = "policy.gated"
ACTIVATED: Final = "policy.activated"
ROLLED_BACK: Final = "policy.rolled_back"
ALARM: Final = "policy.alarm"
PAUSED: Final = "policy.paused"
RESUMED: Final = "policy.resumed"
_KINDS: Final = tuple(kind for kind in KINDS if kind.startswith("policy."))


@dataclass(slots=True)
class Version:
    """One version and what became of it."""

    version: int
    parent: int | None = None
    digest: str | None = None
    last_seq: int = 0  # place in the log up to which it has learned
    feedback: int = 0  # judgments that it was learned from
    reward_version: str | None = None
    metrics: dict[str, float | None] = field(default_factory=dict)  # by the names of docs/metrics.md
    published_at: float | None = None  # seconds since 1970
    activated_at: float | None = None  # the last time, seconds since 1970
    passed: bool | None = None  # what the gate said; None: it has not spoken
    reasons: list[str] = field(default_factory=list)  # why it did not pass


@dataclass(frozen=True, slots=True)
class Alarm:
    """Something that needs eyes."""

    id: str
    at: float  # seconds since 1970
    name: str
    text: str
    version: int | None
    metrics: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Activation:
    """From `at` on, judgments up to `last_seq` were in what was served."""

    at: float  # seconds since 1970
    version: int
    last_seq: int


class Policy:
    """The present state of everything that `policy.*` events say; and, in memory alone, what the learner is doing."""

    def __init__(self) -> None:
        self.versions: dict[int, Version] = {}
        self.active: int | None = None  # None: nothing was ever activated, what is served is as it was given
        self.before: list[int] = []  # active before that, the newest last: where a roll-back goes
        self.activations: list[Activation] = []
        self.paused = False
        self.pause_reason = ""
        self.paused_at: float | None = None
        self.alarms: deque[Alarm] = deque(maxlen=MOST_ALARMS)
        self.progress: dict[str, Any] | None = None
        self.trouble: str | None = None  # why the engine does not serve the active version, while it does not

    # ------------------------------------------------------------ reading

    @property
    def serving(self) -> int:
        """The version that is, or shall be, served."""
        return GIVEN if self.active is None else self.active

    @property
    def newest(self) -> Version | None:
        return self.versions[max(self.versions)] if self.versions else None

    @property
    def learned(self) -> int:
        """Place in the log up to which some version has learned; 0 where there is none."""
        return max((version.last_seq for version in self.versions.values()), default=0)

    @property
    def live(self) -> int:
        """Place in the log up to which the active version has learned."""
        return self.last_seq(self.serving)

    def last_seq(self, version: int) -> int:
        return self.versions[version].last_seq if version in self.versions else 0

    def knows(self, version: int) -> bool:
        """Whether there is, or once was, such a version."""
        return version == GIVEN or version in self.versions

    def stage(self, ready_seq: int | None, settled: bool) -> str:
        """How far a judgment has come that became ready at this place of the log; None: it waits for its answer."""
        if ready_seq is None:
            return "waiting"
        if ready_seq <= self.live:
            return "live"
        if ready_seq <= self.learned:
            return "learned"
        return "settled" if settled else "saved"

    def earlier(self, kept: Collection[int]) -> int | None:
        """Where a roll-back goes: what was active before and is `kept`; None where there is nothing."""
        usable = {*kept, GIVEN} - {self.serving}
        return next((version for version in reversed(self.before) if version in usable), None)

    def news(self) -> dict[str, Any]:
        """What open pages are told when a version comes, or is served."""
        return {"learned": self.learned, "live": self.live, "active": self.serving, "paused": self.paused}

    # ------------------------------------------------------------ events to append

    def activation(self, caller: Caller, version: int, last_seq: int, reason: str) -> NewEvent:
        """`version` is served from now on."""
        body = {"version": version, "before": self.serving, "reason": reason, "last_seq": last_seq}
        return policy_event(ACTIVATED, caller, body)

    def roll_back(self, caller: Caller, version: int, reason: str) -> NewEvent:
        """`version`, which was active before, is served again."""
        return policy_event(ROLLED_BACK, caller, {"version": version, "from": self.serving, "reason": reason})

    # ------------------------------------------------------------ applying

    def apply(self, event: Event) -> None:
        """Let an event of the log have its effect. Events of other kinds have none."""
        body = event.body
        match event.kind:
            case "policy.published":
                known = ("parent", "digest", "last_seq", "feedback", "reward_version")
                about = {name: body[name] for name in known if body.get(name) is not None}
                number = body["version"]
                metrics = dict(body.get("metrics") or {})
                self.versions[number] = Version(number, **about, metrics=metrics, published_at=event.ts)
            case "policy.gated" if body["version"] in self.versions:
                gated = self.versions[body["version"]]
                gated.passed, gated.reasons = body["passed"], list(body.get("reasons") or [])
                gated.metrics |= body.get("metrics") or {}
            case "policy.activated":
                self.before.append(self.serving)
                self._serve(event, body["version"], body.get("last_seq"))
            case "policy.rolled_back":
                while self.before and self.before.pop() != body["version"]:
                    pass
                self._serve(event, body["version"], None)
            case "policy.alarm":
                metrics = dict(body.get("metrics") or {})
                alarm = Alarm(event.id, event.ts, body["name"], body["text"], body.get("version"), metrics)
                self.alarms.append(alarm)
            case "policy.paused":
                self.paused, self.pause_reason, self.paused_at = True, str(body.get("reason") or ""), event.ts
            case "policy.resumed":
                self.paused, self.pause_reason, self.paused_at = False, "", None

    def _serve(self, event: Event, version: int, last_seq: int | None) -> None:
        self.active, self.trouble = version, None
        if last_seq and version not in self.versions:  # activated without a word of its publication
            self.versions[version] = Version(version, last_seq=last_seq)
        if version in self.versions:
            self.versions[version].activated_at = event.ts
        self.activations.append(Activation(event.ts, version, self.last_seq(version)))


def policy_event(kind: str, caller: Caller, body: Mapping[str, Any], idem_key: str | None = None) -> NewEvent:
    """Something that happened to the policy, by the hand of `caller`."""
    return NewEvent(kind=kind, actor_id=caller.id, actor_kind=caller.kind, body=body, idem_key=idem_key)


def replayed(log: LogReader) -> Policy:
    """What the events of `log` come to."""
    policy, after = Policy(), 0
    while events := log.read(after, _KINDS):
        for event in events:
            policy.apply(event)
        after = events[-1].seq
    return policy


# ---------------------------------------------------------------- the registry


def find_version(weights: Path, policy: Policy, version: int) -> Manifest | None:
    """The manifest of a version; None for the model as it was given, where nobody has written it down.

    Raises ApiError 404 where there never was such a version, 409 where it is not there any more, or damaged.
    """
    path = manifest_path(weights, version)
    if not path.exists():
        if version == GIVEN:
            return None
        if policy.knows(version):
            raise ApiError(409, f"version {version} is not kept any more; choose another", param="version", code="gone")
        raise ApiError(404, f"there is no version {version}", param="version")
    try:
        return read_manifest(path)
    except StoreError as error:
        raise ApiError(409, str(error), param="version", code="damaged") from error


def note_active(weights: Path, version: int) -> None:
    """Write down what an engine serves when it starts, unless it stands there. Raises StoreError."""
    try:
        if active_version(weights) == version:
            return
    except StoreError:
        pass  # damaged, and written anew
    set_active(weights, version)


def described(policy: Policy, weights: Path, most: int | None = None, older_than: int | None = None) -> dict[str, Any]:
    """The state of the policy as everybody may see it, versions newest first.

    At most `most` versions and, before those, all that are kept, which are few; `next` is the `older_than` of the page
    that follows, None after the last one.
    """
    kept = {manifest.version for manifest in list_versions(weights)} | {GIVEN}
    versions = {GIVEN: Version(GIVEN), **policy.versions}
    gone = sorted((number for number in versions if number not in kept), reverse=True)
    if older_than is not None:
        gone = [number for number in gone if number < older_than]
    page = gone[:most]
    listed = page if older_than is not None else sorted({*page, *(kept & versions.keys())}, reverse=True)
    return {
        "active": policy.serving,
        "before": policy.earlier(kept),
        "paused": policy.paused,
        "pause_reason": policy.pause_reason,
        "learned": policy.learned,
        "live": policy.live,
        "trouble": policy.trouble,
        "versions": [_shown(policy, versions[number], kept) for number in listed],
        "next": page[-1] if len(page) < len(gone) else None,
        "progress": policy.progress,
        "alarms": [
            {**asdict(alarm), "at": _iso(alarm.at), "metrics": dict(alarm.metrics)} for alarm in reversed(policy.alarms)
        ],
    }


def _shown(policy: Policy, version: Version, kept: Collection[int]) -> dict[str, Any]:
    times = {"published_at": _iso(version.published_at), "activated_at": _iso(version.activated_at)}
    return {
        **asdict(version),
        **times,
        "active": version.version == policy.serving,
        "kept": version.version in kept,
    }


def _iso(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
