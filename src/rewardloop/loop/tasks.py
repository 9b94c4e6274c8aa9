"""The sandbox as a task of the loop: its training prompts, simulated people, the gold judge on held-out prompts."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from rewardloop.errors import ConfigError
from rewardloop.evaluate.defects import find_defects
from rewardloop.loop.measure import Measurer
from rewardloop.loop.people import SimulatedPeople
from rewardloop.loop.recipe import Recipe
from rewardloop.loop.rewards import LearnedReward
from rewardloop.loop.run import Task
from rewardloop.models.language_model import freeze_copy, load_language_model
from rewardloop.reward.features import FeatureExtractor
from rewardloop.sandbox.annotators import KINDS, SimulatedAnnotator
from rewardloop.sandbox.dialogues import held_out_prompts, training_prompts
from rewardloop.sandbox.judges import GoldReward
from rewardloop.sandbox.world import World


def simulated_task(
    recipe: Recipe, model: Path, world: World, annotators: Sequence[str], *, held_out: int | None = None
) -> Task:
    """A policy from `model` among simulated people of the given kinds, asked in turn.

    `held_out` takes the first so many held-out prompts; None takes all. Raises ConfigError for an unknown kind,
    ModelError where the model cannot be loaded.
    """
    unknown = [kind for kind in annotators if kind not in KINDS]
    if unknown or not annotators:
        raise ConfigError(f"unknown annotators {', '.join(unknown) or 'none'}; known: {', '.join(KINDS)}")
    policy = load_language_model(model)
    reference = freeze_copy(policy)
    people = tuple(
        SimulatedAnnotator(world, kind, name=f"{kind}-{number}", seed=recipe.seed + number)
        for number, kind in enumerate(annotators)
    )
    return Task(
        policy=policy,
        reference=reference,
        prompts=training_prompts(world),
        rewards=LearnedReward(FeatureExtractor(reference), recipe.seed),
        people=SimulatedPeople(people, recipe.asking.replies),
        measurer=Measurer(
            held_out_prompts(world)[:held_out],
            GoldReward(world),
            recipe,
            find_defects=partial(find_defects, world),
        ),
    )
