"""The table of running sequences, on the host: a row for each slot, running rows always first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from rewardloop.rollout.draw import uniform_stream
from rewardloop.rollout.shaping import Shaping
from rewardloop.types import Prompt


@dataclass(frozen=True, slots=True)
class Pending:
    """A request with its prompt encoded, waiting for a slot or running in one."""

    handle: int
    prompt: Prompt
    prompt_ids: tuple[int, ...]
    limit: int  # tokens of prompt and completion at which it stops
    temperature: float
    seed: int
    shaping: Shaping = field(default_factory=Shaping)


class Slots:
    """Tokens, log-probabilities and versions of the running sequences, by row and position.

    Rows 0 .. running - 1 run: a row that ends is filled with the last one, so that a step computes nothing
    for empty slots.
    """

    def __init__(self, slots: int, length: int) -> None:
        self.length_limit = length
        self.owners: list[Pending] = []
        self.ids = np.zeros((slots, length), np.int64)
        self.logprobs = np.zeros((slots, length), np.float32)
        self.versions = np.zeros((slots, length), np.int32)
        self.uniforms = np.zeros((slots, length), np.float64)
        self.lengths = np.zeros(slots, np.int64)
        self.limits = np.zeros(slots, np.int64)
        self.temperatures = np.zeros(slots, np.float64)

    @property
    def running(self) -> int:
        return len(self.owners)

    @property
    def free(self) -> int:
        return len(self.lengths) - len(self.owners)

    def admit(self, pending: Pending) -> int:
        """Put a sequence into the next row; gives the row."""
        row, start = len(self.owners), len(pending.prompt_ids)
        self.owners.append(pending)
        self.ids[row, :start] = pending.prompt_ids
        self.uniforms[row, start : pending.limit] = uniform_stream(pending.seed, pending.limit - start)
        self.lengths[row], self.limits[row] = start, pending.limit
        self.temperatures[row] = pending.temperature
        return row

    def append(self, tokens_B: np.ndarray, logprobs_B: np.ndarray, version: int) -> None:
        """One token more for every running row."""
        rows = np.arange(self.running)
        at = self.lengths[: self.running]
        self.ids[rows, at] = tokens_B
        self.logprobs[rows, at] = logprobs_B
        self.versions[rows, at] = version
        self.lengths[: self.running] += 1

    def remove(self, row: int) -> int:
        """Free a row; gives the row whose sequence now lies there (the last one)."""
        last = len(self.owners) - 1
        if row != last:
            for array in (self.ids, self.logprobs, self.versions, self.uniforms):
                array[row] = array[last]
            for column in (self.lengths, self.limits, self.temperatures):
                column[row] = column[last]
            self.owners[row] = self.owners[last]
        self.owners.pop()
        return last

    def grown(self, length: int) -> Slots:
        """The same running sequences in a table with room for `length` tokens each."""
        table = Slots(len(self.lengths), length)
        table.owners = self.owners
        for name in ("ids", "logprobs", "versions", "uniforms"):
            before = getattr(self, name)
            getattr(table, name)[:, : before.shape[1]] = before
        table.lengths, table.limits, table.temperatures = self.lengths, self.limits, self.temperatures
        return table

    def prefixes(self, rows: Sequence[int]) -> dict[bytes, list[int]]:
        """Rows by all their tokens but the newest: equal texts are computed once."""
        shared: dict[bytes, list[int]] = {}
        for row in rows:
            shared.setdefault(self.ids[row, : self.lengths[row] - 1].tobytes(), []).append(row)
        shared.pop(b"", None)
        return shared
