"""The method on one page: sample, score, optimize, ask, refit, measure, repeat until it has converged.

`learn` is what `rewardloop simulate` and `rewardloop optimize` do; they differ in whom they ask (simulated people,
or nobody) and in who measures (the world's gold judge, or a second reward model).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from rewardloop.evaluate.convergence import reason_to_stop
from rewardloop.evaluate.foresight import save_potential
from rewardloop.loop.journal import Journal, above, below
from rewardloop.loop.learner import Learner
from rewardloop.loop.measure import Measurement, Measurer
from rewardloop.loop.people import People
from rewardloop.loop.recipe import Recipe
from rewardloop.loop.rewards import Rewards
from rewardloop.loop.seeds import derive_rng
from rewardloop.models.language_model import LanguageModel, save_language_model
from rewardloop.types import Prompt, Rollout


@dataclass(frozen=True)
class Task:
    """What is learned, from whom, and who measures it."""

    policy: LanguageModel  # is changed in place
    reference: LanguageModel  # the same, frozen
    prompts: tuple[Prompt, ...]  # trained on, never measured on
    rewards: Rewards
    people: People | None  # None: nobody is asked
    measurer: Measurer  # held-out prompts and their judge


@dataclass(frozen=True)
class Outcome:
    """How a run went."""

    journal: Journal
    learner: Learner
    measurement: Measurement


Watch = Callable[[dict[str, float]], None]


def learn(task: Task, recipe: Recipe, folder: Path, watch: Watch) -> Outcome:
    """Run the loop in `folder`, from its last generation if there is one, and save the policy there.

    `watch` is given the metrics of every iteration. Raises ConfigError, StoreError, TrainingError.
    """
    began = monotonic()
    learner, journal = Learner(task.policy, task.reference, recipe), Journal(folder, recipe)
    progress = journal.progress

    # 0. What the untouched reference says: the zero of every scale, and the first questions.
    pool = learner.sample(_pool_prompts(task, recipe), "pool", 0)
    task.measurer.prepare(learner.engine)
    state = journal.resume()
    if state is None:
        metrics = _ask(task, recipe, journal, pool, pool)
        _follow_reward(task, learner, journal, pool)
        watch(_measure(task, learner, journal, metrics, began))
    else:
        progress = journal.progress
        task.rewards.restore(below(state, "reward."), len(journal.feedback))
        learner.restore(below(state, "learner."))

    while progress.iteration < recipe.most_iterations and progress.stopped_because is None and task.rewards.source:
        # 1. Sample completions, 2. score them and spread the reward over their tokens, 3. weigh each token by its
        # advantage, 4. move the policy.
        step = learner.iterate(
            _iteration_prompts(task, recipe, progress.iteration),
            task.rewards.source,
            progress.iteration,
            lr_share=1 - progress.iteration / recipe.most_iterations,
        )
        progress.iteration += 1
        progress.samples += len(step.scored.rollout)
        progress.tokens += int(step.scored.completion_mask_BT.sum())
        metrics = step.metrics

        # 5. Ask people about what the policy says now, 6. refit the reward, and phi after it.
        if progress.iteration % recipe.asking.every == 0 and _questions_left(task, recipe, journal):
            metrics |= _ask(task, recipe, journal, step.scored.rollout, pool)
            _follow_reward(task, learner, journal, pool)

        # 7. Measure on held-out prompts, 8. stop when the policy has converged, keep the generation.
        if progress.iteration % recipe.evaluate_every == 0 or progress.iteration == recipe.most_iterations:
            counted = _measure(task, learner, journal, metrics, began)
            if not _questions_left(task, recipe, journal):
                progress.stopped_because = reason_to_stop(
                    progress.points, target_kl=recipe.optimizer.target_kl, answers=len(task.measurer.prompts)
                )
            journal.save(above("learner.", learner.tensors()) | above("reward.", task.rewards.tensors()))
        else:
            counted = _counted(metrics, journal, began)
            journal.write_metrics(counted)
        watch(counted)

    save_language_model(task.policy, folder / "policy")
    save_potential(task.reference, learner.potential, folder / "potential")
    # A run that had ended before is looked at once more: the same seeds give the same answers.
    last = task.measurer.last or task.measurer.measure(learner.engine, task.rewards.source, progress.iteration)
    return Outcome(journal, learner, last)


def _pool_prompts(task: Task, recipe: Recipe) -> list[Prompt]:
    """As many training prompts, in turn, as give `reference_samples` completions."""
    wanted = -(-recipe.reference_samples // recipe.sampling.group_size)
    order = derive_rng(recipe.seed, "pool").permutation(len(task.prompts))
    return [task.prompts[int(order[i % len(order)])] for i in range(wanted)]


def _iteration_prompts(task: Task, recipe: Recipe, iteration: int) -> list[Prompt]:
    count = min(recipe.sampling.prompts, len(task.prompts))
    chosen = derive_rng(recipe.seed, "prompts", iteration).choice(len(task.prompts), size=count, replace=False)
    return [task.prompts[int(i)] for i in chosen]


def _questions_left(task: Task, recipe: Recipe, journal: Journal) -> bool:
    return task.people is not None and len(journal.feedback) < recipe.asking.events


def _ask(task: Task, recipe: Recipe, journal: Journal, shown: Rollout, pool: Rollout) -> dict[str, float]:
    """Hear what people say of `shown`, then refit the reward to everything they have said."""
    if task.people is not None:
        count = min(recipe.asking.per_round, recipe.asking.events - len(journal.feedback))
        rng = derive_rng(recipe.seed, "ask", journal.progress.iteration)
        journal.feedback += task.people.reply(shown, count, rng)
    task.rewards.refit(journal.feedback, pool)
    return dict(task.rewards.metrics)


def _follow_reward(task: Task, learner: Learner, journal: Journal, pool: Rollout) -> None:
    """A reward of a new version needs a new phi."""
    if task.rewards.source is not None:
        learner.restart_potential(learner.score(pool, task.rewards.source), journal.feedback)


def _measure(
    task: Task, learner: Learner, journal: Journal, metrics: dict[str, float], began: float
) -> dict[str, float]:
    seen = task.measurer.measure(learner.engine, task.rewards.source, journal.progress.iteration)
    counted = _counted(metrics | seen.metrics, journal, began)
    journal.write_metrics(counted)
    journal.write_samples(seen.after.completions, seen.after.scores_B.tolist())
    journal.progress.points.append(counted)
    return counted


def _counted(metrics: dict[str, float], journal: Journal, began: float) -> dict[str, float]:
    """`metrics` with the counters that every line has."""
    progress = journal.progress
    return {
        "loop/iteration": progress.iteration,
        "loop/events": len(journal.feedback),
        "loop/samples": progress.samples,
        "loop/tokens": progress.tokens,
        "loop/seconds": monotonic() - began,
    } | metrics
