"""`rewardloop simulate`: the whole loop with simulated annotators, in one process, without a server."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from rewardloop.cli.progress import watch_run
from rewardloop.cli.results import write_results
from rewardloop.config import resolve_recipe
from rewardloop.evaluate.report import Language
from rewardloop.hardware import set_up_threads
from rewardloop.loop.recipe import Recipe
from rewardloop.loop.run import learn
from rewardloop.loop.tasks import simulated_task
from rewardloop.sandbox.builtin import builtin_model_folder
from rewardloop.sandbox.world import build_world


def simulate(
    out: Path,
    model: Path | None,
    world_seed: int,
    annotators: str,
    recipe_file: Path | None,
    overrides: Sequence[str],
    console: Console,
    language: Language = "en",
) -> None:
    """Run the loop in `out` and write the report there."""
    recipe = resolve_recipe(Recipe, recipe_file, overrides)
    set_up_threads(recipe.threads)
    world = build_world(world_seed)
    task = simulated_task(recipe, model or builtin_model_folder(), world, annotators.split(","))
    console.print(
        f"The model answers questions about the town of {world.town.en}. Simulated people ({annotators}) judge "
        f"{recipe.asking.events} of its answers; the gold judge looks at {len(task.measurer.prompts)} held-out ones.",
        highlight=False,
    )
    with watch_run(console, recipe) as watch:
        outcome = learn(task, recipe, out, watch)
    write_results(
        outcome,
        task.rewards.source,
        recipe,
        out,
        console,
        f"rewardloop simulate · {getattr(world.town, language)}",
        language,
    )
