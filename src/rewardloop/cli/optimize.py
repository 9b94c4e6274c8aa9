"""`rewardloop optimize`: a policy against a reward that was learned before."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from rewardloop.cli.names import model_source
from rewardloop.cli.progress import watch_run
from rewardloop.cli.results import write_results
from rewardloop.config import resolve_recipe
from rewardloop.errors import DataError, ModelError
from rewardloop.evaluate.report import Language
from rewardloop.feedback.prompts import read_prompts
from rewardloop.hardware import set_up_threads
from rewardloop.loop.measure import Measurer
from rewardloop.loop.recipe import Recipe
from rewardloop.loop.rewards import GivenReward
from rewardloop.loop.run import Task, learn
from rewardloop.loop.seeds import derive_rng
from rewardloop.models.language_model import LanguageModel, freeze_copy, load_language_model
from rewardloop.reward.storage import load_reward
from rewardloop.types import Prompt

HELD_OUT = 64  # prompts kept for measuring, a fifth of all at most


def optimize(
    policy: str,
    reward: Path,
    prompts: Path | None,
    second: Path | None,
    out: Path,
    recipe_file: Path | None,
    overrides: Sequence[str],
    console: Console,
    language: Language = "en",
) -> None:
    """Run in `out`, write the policy and the report there."""
    # Base models often have no end token within reach, and nobody is asked here.
    recipe = resolve_recipe(
        Recipe, recipe_file, overrides, base=["asking.events=0", "immediate.missing_end_score=null"]
    )
    set_up_threads(recipe.threads)
    lm = load_language_model(model_source(policy))
    train, held_out = _split(_usable(read_prompts(prompts or reward), lm, recipe.sampling.max_tokens), recipe.seed)
    source = load_reward(reward)
    judge = load_reward(second) if second else source
    task = Task(
        policy=lm,
        reference=freeze_copy(lm),
        prompts=train,
        rewards=GivenReward(source),
        people=None,
        measurer=Measurer(held_out, judge, recipe),
    )
    console.print(
        f"{policy}: {len(train)} prompts to learn on, {len(held_out)} held out; "
        f"judged by {second or reward}{'' if second else ' (the reward itself: give --second for a fair judge)'}",
        highlight=False,
    )
    with watch_run(console, recipe) as watch:
        outcome = learn(task, recipe, out, watch)
    write_results(outcome, task.rewards.source, recipe, out, console, f"{policy} · {reward}", language)


def _usable(prompts: Sequence[Prompt], lm: LanguageModel, max_tokens: int) -> list[Prompt]:
    """Prompts that leave room for a completion; the others are too long for this model."""
    usable = [prompt for prompt in prompts if _fits(prompt, lm, max_tokens)]
    if len(usable) < 10:
        raise DataError(
            f"{len(usable)} of {len(prompts)} prompts leave room for {max_tokens} tokens in the {lm.context} of "
            f"{lm.name}; give at least 10 shorter prompts, or lower sampling.max_tokens"
        )
    return usable


def _fits(prompt: Prompt, lm: LanguageModel, max_tokens: int) -> bool:
    try:
        return len(lm.encode_prompt(prompt)) + max_tokens <= lm.context
    except ModelError:  # longer than the whole context
        return False


def _split(prompts: list[Prompt], seed: int) -> tuple[tuple[Prompt, ...], tuple[Prompt, ...]]:
    order = derive_rng(seed, "split").permutation(len(prompts))
    kept = min(HELD_OUT, max(2, len(prompts) // 5))
    shuffled = [prompts[int(i)] for i in order]
    return tuple(shuffled[kept:]), tuple(shuffled[:kept])
