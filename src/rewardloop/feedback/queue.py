"""What to ask whom next: state in, one question out. No clock, no database, no hidden draw.

Of a person's questions a tenth are gold items, some are repeats with the sides swapped, and of the rest a fifth are
drawn at random (so that what is learned from them stays unbiased) and the others are what teaches most. An item goes
to k people; a question that is not answered in time goes back.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

import numpy as np

from rewardloop.errors import ConfigError
from rewardloop.types import Prompt

WEIGHED = 32  # items, drawn at random, of which the most telling is asked; to weigh all would take too long
Purpose = Literal["gold", "repeat", "random", "informative"]


@dataclass(frozen=True, slots=True)
class Item:
    """Two completions to choose from. `gold` is the one that is known to be better, for gold items."""

    key: str
    prompt: Prompt
    first: str
    second: str
    gold: Literal["first", "second"] | None = None


@dataclass(frozen=True, slots=True)
class Lease:
    """A question that one person holds until it expires; `swapped`: the item's second text is shown first."""

    item: str
    annotator: str
    purpose: Purpose
    swapped: bool
    issued_s: float
    expires_s: float


@dataclass(frozen=True, slots=True)
class Answered:
    """A question that is over: answered, or skipped (it is not offered to that person again)."""

    item: str
    annotator: str
    purpose: Purpose
    swapped: bool
    skipped: bool = False


@dataclass(frozen=True, slots=True)
class QueueSettings:
    """Shares of a person's questions, in [0, 1]; the rest of gold and repeats is split by `random_share`."""

    overlap: int = 2  # people who judge each item
    lease_s: float = 600.0
    gold_share: float = 0.1
    repeat_share: float = 0.075
    random_share: float = 0.2
    repeat_after: int = 10  # answers of a person between a question and its repeat

    def __post_init__(self) -> None:
        shares = self.gold_share, self.repeat_share, self.random_share
        if not all(0 <= share <= 1 for share in shares) or self.gold_share + self.repeat_share > 1:
            raise ConfigError(f"shares of gold, repeats and random questions are {shares}; expected each in [0, 1]")
        if self.overlap < 1 or self.lease_s <= 0 or self.repeat_after < 0:
            raise ConfigError("a queue needs an overlap of at least 1, a lease above 0 s, repeat_after of at least 0")


@dataclass(frozen=True)
class QueueState:
    """All that is known; `answered` in the order in which the answers came."""

    items: tuple[Item, ...]
    answered: tuple[Answered, ...] = ()
    leases: tuple[Lease, ...] = ()
    settings: QueueSettings = field(default_factory=QueueSettings)

    @cached_property
    def by_key(self) -> dict[str, Item]:
        return {item.key: item for item in self.items}

    @cached_property
    def judged(self) -> Counter[str]:
        """How many people have judged each item; repeats and skips do not count."""
        return Counter(done.item for done in self.answered if not done.skipped and done.purpose != "repeat")

    def live(self, now_s: float) -> tuple[Lease, ...]:
        """Leases that have not expired; at `expires_s` it has."""
        return tuple(lease for lease in self.leases if lease.expires_s > now_s)


# Nats of asking each of some items; None where nothing is known yet, and all are drawn alike.
Informing = Callable[[Sequence[Item]], np.ndarray]


def plan_next(
    state: QueueState, annotator: str, now_s: float, informing: Informing | None = None, seed: int = 0
) -> Lease | None:
    """The next question for a person, or the one that they still hold; None when there is nothing left to ask.

    The same state, person and seed give the same question.
    """
    held = next((lease for lease in state.live(now_s) if lease.annotator == annotator), None)
    if held is not None:
        return held
    rng = _rng(state, annotator, seed)
    offers = {
        "gold": _gold_items(state, annotator),
        "repeat": _repeatable(state, annotator),
        "fresh": _open_items(state, annotator, now_s),
    }
    kind = _draw_kind(offers, state.settings, rng)
    if kind is None:
        return None
    item, purpose = _pick(offers[kind], kind, state.settings, informing, rng)
    swapped = bool(rng.integers(2))
    if purpose == "repeat":
        swapped = not next(d.swapped for d in state.answered if d.annotator == annotator and d.item == item.key)
    return Lease(item.key, annotator, purpose, swapped, now_s, now_s + state.settings.lease_s)


def grant(state: QueueState, lease: Lease) -> QueueState:
    """The state in which a planned question is held."""
    return state if lease in state.leases else replace(state, leases=(*state.leases, lease))


def close(state: QueueState, lease: Lease, *, skipped: bool = False) -> QueueState:
    """The state after an answer, or a skip. A late answer counts as well: it was given."""
    done = Answered(lease.item, lease.annotator, lease.purpose, lease.swapped, skipped)
    return replace(
        state, answered=(*state.answered, done), leases=tuple(held for held in state.leases if held != lease)
    )


def _rng(state: QueueState, annotator: str, seed: int) -> np.random.Generator:
    turn = sum(done.annotator == annotator for done in state.answered)
    expired = sum(lease.annotator == annotator for lease in state.leases)
    digest = hashlib.sha256(repr((seed, annotator, turn, expired)).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "little"))


def _gold_items(state: QueueState, annotator: str) -> list[Item]:
    seen = {done.item for done in state.answered if done.annotator == annotator}
    return [item for item in state.items if item.gold is not None and item.key not in seen]


def _repeatable(state: QueueState, annotator: str) -> list[Item]:
    """Items that a person answered long enough ago, once, and that are not gold."""
    mine = [done for done in state.answered if done.annotator == annotator]
    times = Counter(done.item for done in mine)
    old = mine[: max(len(mine) - state.settings.repeat_after, 0)]
    return [
        state.by_key[done.item]
        for done in old
        if not done.skipped
        and times[done.item] == 1
        and done.item in state.by_key
        and state.by_key[done.item].gold is None
    ]


def _open_items(state: QueueState, annotator: str, now_s: float) -> list[Item]:
    """Items that need another person, held questions counted as answered; the person has not seen them."""
    seen = {done.item for done in state.answered if done.annotator == annotator}
    held = Counter(lease.item for lease in state.live(now_s) if lease.purpose != "repeat")
    return [
        item
        for item in state.items
        if item.gold is None
        and item.key not in seen
        and state.judged[item.key] + held[item.key] < state.settings.overlap
    ]


def _draw_kind(
    offers: dict[str, list[Item]], settings: QueueSettings, rng: np.random.Generator
) -> Literal["gold", "repeat", "fresh"] | None:
    """By shares; what is not there gives way to fresh items. Gold and repeats alone are no reason to ask."""
    if not offers["fresh"]:
        return None
    draw = rng.random()
    if draw < settings.gold_share:
        return "gold" if offers["gold"] else "fresh"
    if draw < settings.gold_share + settings.repeat_share:
        return "repeat" if offers["repeat"] else "fresh"
    return "fresh"


def _pick(
    items: list[Item],
    kind: Literal["gold", "repeat", "fresh"],
    settings: QueueSettings,
    informing: Informing | None,
    rng: np.random.Generator,
) -> tuple[Item, Purpose]:
    if kind == "fresh" and informing is not None and rng.random() >= settings.random_share:
        drawn = [items[at] for at in rng.permutation(len(items))[:WEIGHED]]  # of equals the first one wins
        return drawn[int(np.argmax(informing(drawn)))], "informative"
    return items[int(rng.integers(len(items)))], "random" if kind == "fresh" else kind
