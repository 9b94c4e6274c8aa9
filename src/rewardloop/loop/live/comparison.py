"""What several versions say to the same canaries, and what the reward and the judge think of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from rewardloop.evaluate.comparison import FindDefects
from rewardloop.evaluate.texts import rep_n
from rewardloop.loop.learner import Learner, sequence_kl
from rewardloop.loop.live.gate import Look, is_decided
from rewardloop.loop.seeds import derive_rng, derive_seed
from rewardloop.reward.model import RewardModel
from rewardloop.rollout.sampling import sample_rollout
from rewardloop.types import Completion, Prompt, Rollout

AT_ONCE, LOOKS = 64, 5  # canary answers at a time, and how many times at most
Weights = Mapping[str, Tensor]


@dataclass(frozen=True, eq=False)
class Judges:
    """Who judges the answers of a version."""

    proxy: RewardModel  # what the policy follows
    judge: RewardModel  # what it never followed; the same as `proxy` while too little was said for two
    find_defects: FindDefects | None  # where the truth is known


@dataclass(frozen=True, eq=False)
class Compared:
    """Looks at answers to the same prompts, place by place."""

    candidate: Look
    active: Look
    before: Look  # the version that was served before the active one
    first: Look  # the untouched model
    kl: float  # of the candidate from the untouched model, nats per sequence


def compare_versions(
    learner: Learner, judges: Judges, canaries: Sequence[Prompt], weights: Sequence[Weights], number: int
) -> Compared:
    """Answers of the candidate, the active version, the one before, and the first, until it is decided.

    `weights` in that order; `number` seeds the draw. The engine speaks as the learner's policy again afterwards.
    """
    seed = learner.recipe.seed
    said: list[list[Completion]] = [[] for _ in weights]
    looks: list[Look] = []
    for look in range(LOOKS):
        rng = derive_rng(seed, "canaries", number, look)
        prompts = [canaries[int(at)] for at in rng.integers(len(canaries), size=AT_ONCE)]
        for place, tensors in enumerate(weights):
            with speaking_as(learner, tensors):
                said[place] += _answers(learner, prompts, derive_seed(seed, "look", number, look, place))
        looks = [_look(completions, judges) for completions in said]
        if is_decided(looks[0], looks[1]):
            break
    candidate, active, before, first = looks
    rollout = Rollout(tuple(said[0]), tuple(range(len(said[0]))))
    return Compared(candidate, active, before, first, sequence_kl(learner.score(rollout, judges.proxy).scored))


@contextmanager
def speaking_as(learner: Learner, weights: Weights) -> Iterator[None]:
    """The learner's engine with other weights for a while."""
    learner.engine.load_weights(weights, learner.weight_version)
    try:
        yield
    finally:
        learner.engine.load_weights(learner.policy.model.state_dict(), learner.weight_version)


def seen(look: Look) -> dict[str, float]:
    """Its figures, by the names of rewardloop.metrics."""
    return {
        "held_out/reward": float(look.judged_B.mean()),
        "held_out/proxy": float(look.proxy_B.mean()),
        "text/length": float(look.lengths_B.mean()),
        "text/repetition": float(look.repetition_B.mean()),
        "reward/disagreement": look.disagreement,
    } | {f"held_out/{name}": float(present_B.mean()) for name, present_B in look.defects.items()}


def _answers(learner: Learner, prompts: Sequence[Prompt], seed: int) -> list[Completion]:
    sampling = learner.recipe.sampling
    rollout = sample_rollout(
        learner.engine,
        prompts,
        group_size=1,
        max_tokens=sampling.max_tokens,
        temperature=sampling.temperature,
        seed=seed,
    )
    return list(rollout.completions)


def _look(completions: Sequence[Completion], judges: Judges) -> Look:
    prompts, texts = [c.prompt for c in completions], [c.text for c in completions]
    return Look(
        judged_B=judges.judge.score(prompts, texts),
        proxy_B=judges.proxy.score(prompts, texts),
        lengths_B=np.array([len(text) for text in texts], dtype=np.float64),
        repetition_B=np.array([rep_n(text, 3) for text in texts], dtype=np.float64),
        disagreement=float(judges.proxy.disagreement(prompts, texts).mean()),
        defects=dict(judges.find_defects(completions)) if judges.find_defects else {},
    )
