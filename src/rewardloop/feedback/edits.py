"""What a correction says: the difference between a completion and its corrected text, as marked characters."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

# A word, one character of a script without spaces, a run of blanks, or one mark of punctuation.
_PIECES = re.compile(
    r"[\u3400-\u9fff\uf900-\ufaff\u3040-\u30ff\U00020000-\U0003ffff]|\s+|[^\W_]+(?:['’][^\W_]+)*|.", re.S
)

REPLACED, BEFORE_INSERTION, KEPT = -1.0, -0.5, 0.0  # credit of a marked part
KEPT_WEIGHT = 0.1  # a part left alone is weak evidence: unedited is not approved
MOSTLY_REWRITTEN = 0.6  # above this share changed, a difference says nothing about single words


@dataclass(frozen=True, slots=True)
class Change:
    """One part of the original, [start, end), and what the corrector made of it, [new_start, new_end)."""

    kind: Literal["kept", "replaced", "deleted", "inserted"]
    start: int
    end: int
    new_start: int
    new_end: int


@dataclass(frozen=True, slots=True)
class Credit:
    """Characters [start, end) of a completion with a credit in [-1, 1] and a weight in (0, 1]."""

    start: int
    end: int
    value: float
    weight: float = 1.0


def split_pieces(text: str) -> list[str]:
    """Words, blanks, single Chinese or Japanese characters, punctuation; joined again they are the text."""
    return _PIECES.findall(text)


def find_changes(original: str, corrected: str) -> tuple[Change, ...]:
    """The shortest list of changes (Levenshtein over pieces) that turns `original` into `corrected`, in order."""
    old, new = split_pieces(original), split_pieces(corrected)
    old_at, new_at = _offsets(old), _offsets(new)
    return tuple(
        Change(kind, old_at[i0], old_at[i1], new_at[j0], new_at[j1])
        for kind, i0, i1, j0, j1 in _merge(_alignment(old, new))
    )


def similarity(original: str, corrected: str) -> float:
    """Share of the characters of the longer text that was kept, from 0 (nothing in common) to 1 (equal)."""
    kept = sum(c.end - c.start for c in find_changes(original, corrected) if c.kind == "kept")
    longer = max(len(original), len(corrected))
    return kept / longer if longer else 1.0


def edit_credit(original: str, corrected: str) -> tuple[Credit, ...]:
    """Credit for each part of `original`: replaced or deleted -1, the piece before an insertion -0.5, kept 0.

    Empty when more than 60 % was changed (a new text, not a correction) or nothing was. This credit looks at the whole
    text: it may train the causal potential, and is never itself a reward.
    """
    changes = find_changes(original, corrected)
    changed = sum(max(c.end - c.start, c.new_end - c.new_start) for c in changes if c.kind != "kept")
    if not changed or changed > MOSTLY_REWRITTEN * max(len(original), len(corrected)):
        return ()
    credits = [_credit(c) for c in changes if c.kind != "inserted"]
    for change in changes:
        if change.kind == "inserted":
            credits = _mark_before(credits, original, change.start)
    return tuple(credits)


def _credit(change: Change) -> Credit:
    if change.kind == "kept":
        return Credit(change.start, change.end, KEPT, KEPT_WEIGHT)
    return Credit(change.start, change.end, REPLACED)


def _mark_before(credits: list[Credit], original: str, at: int) -> list[Credit]:
    """Give the last word before `at` (the first word, for an insertion at the start) its share of the blame."""
    pieces = split_pieces(original)
    ends = _offsets(pieces)
    words = [(ends[i], ends[i + 1]) for i, piece in enumerate(pieces) if not piece.isspace()]
    before = [span for span in words if span[1] <= at] or words[:1]
    if not before:
        return credits
    start, end = before[-1]
    marked: list[Credit] = []
    for part in credits:
        if part.value == KEPT and part.start <= start and end <= part.end:
            pieces_of_part = (
                Credit(part.start, start, KEPT, part.weight),
                Credit(start, end, BEFORE_INSERTION),
                Credit(end, part.end, KEPT, part.weight),
            )
            marked += [p for p in pieces_of_part if p.start < p.end]
        else:
            marked.append(part)
    return marked


def _offsets(pieces: Sequence[str]) -> list[int]:
    ends = [0]
    for piece in pieces:
        ends.append(ends[-1] + len(piece))
    return ends


def _alignment(old: Sequence[str], new: Sequence[str]) -> list[tuple[str, int, int]]:
    """Steps (kind, i, j) of a cheapest alignment, from the front."""
    names = {piece: number for number, piece in enumerate(dict.fromkeys([*old, *new]))}
    old_ids = np.array([names[piece] for piece in old], dtype=np.int64)
    new_ids = np.array([names[piece] for piece in new], dtype=np.int64)
    costs = _edit_costs(old_ids, new_ids)
    steps: list[tuple[str, int, int]] = []
    i, j = len(old), len(new)
    while i or j:
        if i and j and old_ids[i - 1] == new_ids[j - 1] and costs[i, j] == costs[i - 1, j - 1]:
            i, j = i - 1, j - 1
            steps.append(("kept", i, j))
        elif i and j and costs[i, j] == costs[i - 1, j - 1] + 1:
            i, j = i - 1, j - 1
            steps.append(("replaced", i, j))
        elif i and costs[i, j] == costs[i - 1, j] + 1:
            i -= 1
            steps.append(("deleted", i, j))
        else:
            j -= 1
            steps.append(("inserted", i, j))
    return steps[::-1]


def _edit_costs(old_ids: np.ndarray, new_ids: np.ndarray) -> np.ndarray:
    """Levenshtein table [len(old)+1, len(new)+1], a row at a time.

    Insertions depend on the cell to the left; min over all cells to the left of cost + distance is a running minimum of
    (cost - column), which keeps the row vectorized.
    """
    columns = np.arange(len(new_ids) + 1)
    costs = np.empty((len(old_ids) + 1, len(new_ids) + 1), dtype=np.int32)
    costs[0] = columns
    for i, piece in enumerate(old_ids, start=1):
        above = costs[i - 1]
        best = above + 1
        best[1:] = np.minimum(best[1:], above[:-1] + (new_ids != piece))
        costs[i] = np.minimum.accumulate(best - columns) + columns
    return costs


def _merge(
    steps: Sequence[tuple[str, int, int]],
) -> list[tuple[Literal["kept", "replaced", "deleted", "inserted"], int, int, int, int]]:
    """Runs of steps as changes; changes that touch become one replacement."""
    runs: list[tuple[bool, int, int, int, int]] = []
    for kind, i, j in steps:
        i1 = i + (kind != "inserted")
        j1 = j + (kind != "deleted")
        if runs and runs[-1][0] == (kind == "kept"):
            kept, i0, _, j0, _ = runs[-1]
            runs[-1] = (kept, i0, i1, j0, j1)
        else:
            runs.append((kind == "kept", i, i1, j, j1))
    return [(_kind(kept, i0, i1, j0, j1), i0, i1, j0, j1) for kept, i0, i1, j0, j1 in runs]


def _kind(kept: bool, i0: int, i1: int, j0: int, j1: int) -> Literal["kept", "replaced", "deleted", "inserted"]:
    if kept:
        return "kept"
    if i0 == i1:
        return "inserted"
    return "deleted" if j0 == j1 else "replaced"
