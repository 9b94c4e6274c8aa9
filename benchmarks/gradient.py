"""What a step of the policy is worth, measured: python benchmarks/gradient.py [--quick] [--json FILE] [--threads N]

Many batches of the untouched built-in model give as many gradients of each kind: rewards learned from 30 and from 300
judgments and the gold judge itself; lambda; siblings as a baseline or not. Two figures for each kind:

    worth      how much gold a step of length 1 along one batch's gradient gains, as a share of what the exact gradient
               would gain: mean over batches of cosine(g, G), G the gradient of gold
    direction  the same for the mean over all batches: 1 is unbiased

G comes from other batches than g, so that no noise is counted as agreement.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import torch
from torch import Tensor

from harness import Figure, parse_options, report
from rewardloop.config import resolve_recipe
from rewardloop.hardware import set_up_threads
from rewardloop.loop.learner import Learner
from rewardloop.loop.recipe import Recipe
from rewardloop.loop.rewards import LearnedReward
from rewardloop.loop.run import Task
from rewardloop.loop.tasks import simulated_task
from rewardloop.models.packed import head_logprobs, pack, packed_hidden, split_rows
from rewardloop.optimize.policy_gradient import METHODS, compute_advantages
from rewardloop.reward.features import FeatureExtractor
from rewardloop.reward.potential import Potential
from rewardloop.sandbox.builtin import builtin_model_folder
from rewardloop.sandbox.judges import GoldReward
from rewardloop.sandbox.world import build_world
from rewardloop.types import Feedback, RewardSource, Rollout

JUDGMENTS = (30, 300)
LAMBDAS = (1.0, 0.95, 0.8, 0.5)
BATCHES = 14


@dataclass(frozen=True)
class Kind:
    """One way to make a gradient."""

    source: str
    gae_lambda: float
    siblings: bool

    @property
    def name(self) -> str:
        return f"{self.source}, lambda {self.gae_lambda}, {'with' if self.siblings else 'no'} siblings"


@dataclass(frozen=True)
class Scale:
    """A source with mean 0 and variance 1 on the reference."""

    source: RewardSource
    mean: float
    deviation: float

    @property
    def version(self) -> str:
        return self.source.version

    def score(self, prompts: list, completions: list) -> np.ndarray:  # type: ignore[type-arg]
        return (self.source.score(prompts, completions) - self.mean) / self.deviation


def main() -> None:
    """Sample, take gradients, compare."""
    options = parse_options(__doc__)
    set_up_threads(options.threads)
    recipe = resolve_recipe(Recipe, None, ["seed=0", *(["reference_samples=128"] if options.quick else [])])
    task = simulated_task(recipe, builtin_model_folder(), build_world(0), ["careful"], held_out=1)
    learner = Learner(task.policy, task.reference, recipe)
    pool = learner.sample(_prompts(task, recipe.reference_samples // 4, 0), "pool", 0)
    sources = {f"{count} judgments": _learned(task, pool, count) for count in JUDGMENTS}
    sources["gold"] = (_gold(pool), sources[f"{JUDGMENTS[-1]} judgments"][1])
    potentials: dict[str, Potential] = {}
    for name, (source, feedback) in sources.items():
        learner.restart_potential(learner.score(pool, source), feedback)
        potentials[name] = learner.potential
    kinds = [Kind(*parts) for parts in product(sources, LAMBDAS, (True, False))]
    batches = [
        learner.sample(_prompts(task, 16, number), "gradient", number)
        for number in range(1, 1 + (3 if options.quick else BATCHES))
    ]
    gradients = {kind: [] for kind in kinds}  # type: dict[Kind, list[Tensor]]
    for rollout in batches:
        for kind, gradient in _gradients(learner, rollout, kinds, {n: s for n, (s, _) in sources.items()}, potentials):
            gradients[kind].append(gradient)
    report("What a step is worth", list(_figures(gradients)), options, {"batches": len(batches)})


def _prompts(task: Task, count: int, seed: int) -> list:  # type: ignore[type-arg]
    chosen = np.random.default_rng(seed).choice(len(task.prompts), count, replace=False)
    return [task.prompts[int(number)] for number in chosen]


def _learned(task: Task, pool: Rollout, count: int) -> tuple[RewardSource, list[Feedback]]:
    assert task.people is not None
    feedback = task.people.reply(pool, count, np.random.default_rng(3))
    rewards = LearnedReward(FeatureExtractor(task.reference), seed=0)
    rewards.refit(feedback, pool)
    assert rewards.source is not None
    return rewards.source, feedback


def _gold(pool: Rollout) -> RewardSource:
    gold = GoldReward(build_world(0))
    scores_B = gold.score([c.prompt for c in pool.completions], [c.text for c in pool.completions])
    return Scale(gold, float(scores_B.mean()), float(scores_B.std()))


def _gradients(
    learner: Learner,
    rollout: Rollout,
    kinds: list[Kind],
    sources: dict[str, RewardSource],
    potentials: dict[str, Potential],
) -> Iterable[tuple[Kind, Tensor]]:
    """The gradient of every kind from one batch, as one long vector in float16."""
    model, completions = learner.policy.model, rollout.completions
    weights = list(model.parameters())
    batch = pack([c.prompt_ids for c in completions], [c.token_ids for c in completions])
    logprobs_BT = split_rows(head_logprobs(model, packed_hidden(model, batch), batch), batch.completion_lengths)
    scored = {}
    for name, source in sources.items():
        learner.potential = potentials[name]
        scored[name] = learner.score(rollout, source).scored
    for kind in kinds:
        method = replace(METHODS["default"], baseline="loo_pos" if kind.siblings else "none")
        advantages_BT = compute_advantages(method, scored[kind.source], beta=0.0, gae_lambda=kind.gae_lambda)
        gain = (advantages_BT * logprobs_BT * scored[kind.source].completion_mask_BT).sum() / len(completions)
        parts = torch.autograd.grad(gain, weights, retain_graph=True)
        yield kind, torch.cat([part.flatten() for part in parts]).half()


def _figures(gradients: dict[Kind, list[Tensor]]) -> Iterable[Figure]:
    stacked = {kind: torch.stack(rows).float() for kind, rows in gradients.items()}
    exact = sum(rows for kind, rows in stacked.items() if kind.source == "gold" and kind.gae_lambda == 1.0) / 2
    length = _across(exact, exact) ** 0.5
    for kind, rows in stacked.items():
        along = _across(rows, exact) / length
        worth = along / float(rows.square().sum(1).mean()) ** 0.5
        direction = along / max(_across(rows, rows), 1e-12) ** 0.5
        yield Figure(f"worth: {kind.name}", worth, worth, worth)
        yield Figure(f"direction: {kind.name}", direction, direction, direction)


def _across(one_KN: Tensor, other_KN: Tensor) -> float:
    """Mean inner product of different batches: noise has none."""
    products_KK = one_KN @ other_KN.T
    return float((products_KK.sum() - products_KK.trace()) / (len(one_KN) * (len(one_KN) - 1)))


if __name__ == "__main__":
    main()
