"""The work that every contender of the step benchmark gets: prompts, sizes, reward."""

from __future__ import annotations

import random
from typing import Final

PROMPTS: Final = 4
GROUP_SIZE: Final = 8
SEQUENCES: Final = PROMPTS * GROUP_SIZE
PROMPT_TOKENS: Final = 32
NEW_TOKENS: Final = 96
LEARNING_RATE: Final = 1e-6


def make_prompts(count: int) -> list[str]:
    """`count` different prompts of PROMPT_TOKENS words, each one token of the benchmarks' model."""
    rng = random.Random(0)
    return [" ".join(f"w{rng.randrange(4, 32_000)}" for _ in range(PROMPT_TOKENS)) for _ in range(count)]


def reward(completion: str) -> float:
    """A reward that costs nothing: how often the digit 7 was written."""
    return completion.count("7") / 10
