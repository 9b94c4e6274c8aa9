"""What people and gates have decided, as the log tells it: which version is served, and whether learning rests."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from rewardloop.feedback.log.events import Event
from rewardloop.loop.live.gate import NOTHING_WON

POLICY_EVENTS: Final = (
    "policy.published",
    "policy.gated",
    "policy.activated",
    "policy.rolled_back",
    "policy.paused",
    "policy.resumed",
)


@dataclass
class Decisions:
    """The present state of the policy's events."""

    active: list[int] = field(default_factory=lambda: [0])  # versions, the one served now last
    paused: str | None = None  # why learning rests
    seq: int = 0  # everything up to here is known
    published: set[int] = field(default_factory=set)
    gated: set[int] = field(default_factory=set)
    wealth: tuple[float, ...] = NOTHING_WON  # of the gate, against the version that is served
    passed: int | None = None  # the version that the gate let in last, while it is not served yet
    rolled_back: list[int] = field(default_factory=list)  # versions that were taken back by the learner itself

    @property
    def serving(self) -> int:
        """The version that is served."""
        return self.active[-1]

    @property
    def before(self) -> int:
        """The version that a roll-back would bring."""
        return self.active[-2] if len(self.active) > 1 else 0

    def note(self, event: Event) -> None:
        """Take in one more event, in order."""
        self.seq = event.seq
        version = int(event.body.get("version", -1))
        match event.kind:
            case "policy.published":
                self.published.add(version)
            case "policy.gated":
                self.gated.add(version)
                self.passed = version if event.body.get("passed") else None
                self.wealth = tuple(event.body.get("wealth") or NOTHING_WON)
            case "policy.activated":
                self.active.append(version)
                self.wealth, self.passed = NOTHING_WON, None
            case "policy.rolled_back":
                self.wealth, self.passed = NOTHING_WON, None
                if event.actor_kind == "system":
                    self.rolled_back.append(int(event.body.get("from", self.serving)))
                if version in self.active:
                    del self.active[self.active.index(version) + 1 :]
                else:
                    self.active.append(version)
            case "policy.paused":
                self.paused = str(event.body.get("reason") or "asked")
            case "policy.resumed":
                self.paused = None
