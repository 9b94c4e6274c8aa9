"""One seed for every draw, derived from the run's seed and what it is for.

Nothing random has a state to store: a run that is resumed at iteration i draws what it would have drawn.
"""

from __future__ import annotations

import hashlib

import numpy as np


def derive_seed(seed: int, purpose: str, *counters: int) -> int:
    """A 62-bit seed, the same for equal arguments and unrelated for different ones."""
    text = ":".join([str(seed), purpose, *map(str, counters)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 2


def derive_rng(seed: int, purpose: str, *counters: int) -> np.random.Generator:
    return np.random.default_rng(derive_seed(seed, purpose, *counters))
