"""Who is excluded, as a record of rulings. Apart from what proposes them: reading the record needs no scipy."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Ruling:
    """One line of the record: somebody is excluded or let back in. The last ruling on a person holds."""

    annotator: str
    action: Literal["exclude", "restore"]
    reason: str
    by: str  # a person's name, or the rule: "gold", "sequential test", "reliability"
    time_s: float


def standing_exclusions(rulings: Iterable[Ruling]) -> dict[str, Ruling]:
    """Who is excluded now, and by which ruling; rulings in any order."""
    last: dict[str, Ruling] = {}
    for ruling in sorted(rulings, key=lambda ruling: ruling.time_s):
        last[ruling.annotator] = ruling
    return {name: ruling for name, ruling in last.items() if ruling.action == "exclude"}
