"""Rollouts: groups of completions for the same prompts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rewardloop.errors import ConfigError
from rewardloop.rollout.engine import Engine, Request
from rewardloop.types import Prompt, Rollout


def sample_rollout(
    engine: Engine,
    prompts: Sequence[Prompt],
    *,
    group_size: int,
    max_tokens: int,
    temperature: float = 1.0,
    seed: int,
) -> Rollout:
    """`group_size` completions of every prompt; group i is prompt i.

    Each completion has a seed of its own, made from `seed`, its prompt's place and its place in the group.
    """
    if group_size < 1:
        raise ConfigError(f"group_size is {group_size}; at least 1 is expected")
    requests = [
        Request(
            prompt=prompt,
            max_tokens=max_tokens,
            temperature=temperature,
            seed=_sequence_seed(seed, group, place),
        )
        for group, prompt in enumerate(prompts)
        for place in range(group_size)
    ]
    groups = tuple(group for group in range(len(prompts)) for _ in range(group_size))
    return Rollout(tuple(engine.generate(requests)), groups)


def _sequence_seed(seed: int, group: int, place: int) -> int:
    return int(np.random.SeedSequence(seed, spawn_key=(group, place)).generate_state(1, np.uint64)[0])
