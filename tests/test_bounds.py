"""What bounds an update: how far a batch may be from the policy, and how far a batch may move it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from rewardloop.errors import TrainingError
from rewardloop.functional.divergences import exact_kl
from rewardloop.loop.learner import Learner
from rewardloop.loop.recipe import Immediate, Optimizer, Recipe, Sampling
from rewardloop.models.language_model import freeze_copy
from rewardloop.optimize.bounds import (
    Freshness,
    check_agreement,
    draw_back,
    keep_weights,
    measure_freshness,
    step_kl,
    step_limit,
)
from rewardloop.types import Completion, Prompt, Rollout, ScoredRollout
from tiny_models import tiny_lm

MASK_BT = torch.tensor([[True, True, True], [True, True, False]])


def test_freshness_by_hand() -> None:
    """Log-weights of the sequences 0 and log 3: (1 + 3)^2 / (2 (1 + 9)) = 0.8. What is masked counts nowhere."""
    old_BT = torch.tensor([[-1.0, -1.0, -1.0], [-1.0, -1.0, math.nan]])
    proximal_BT = torch.tensor([[-1.5, -0.5, -1.0], [-1.0 + math.log(3), -1.0, math.nan]])
    versions_BT = torch.tensor([[4, 4, 5], [4, 5, 0]], dtype=torch.int32)
    fresh = measure_freshness(proximal_BT, old_BT, MASK_BT, versions_BT, weight_version=5)
    assert fresh == Freshness(log_ratio=0.0, lag=1, ess=pytest.approx(0.8))
    fresh = measure_freshness(proximal_BT, old_BT, MASK_BT, versions_BT, weight_version=4)
    assert fresh.log_ratio == pytest.approx(math.log(3))


@pytest.mark.parametrize(("lag", "ess", "usable"), [(0, 1.0, True), (2, 0.5, True), (3, 1.0, False), (0, 0.49, False)])
def test_old_and_far_batches_are_not_used(lag: int, ess: float, usable: bool) -> None:
    assert Freshness(0.0, lag, ess).usable is usable


def test_agreement_is_within_rounding_or_an_error() -> None:
    check_agreement(5e-5)
    for log_ratio in (0.01, math.nan):
        with pytest.raises(TrainingError, match="Dropout"):
            check_agreement(log_ratio)


def test_the_limit_of_a_step_by_hand() -> None:
    """2.5 tokens a sequence: 0.02 * 2.5 = 0.05 nats; a thirty-sixth of 0.9 nats is 0.025."""
    assert step_limit(0.0, MASK_BT) == pytest.approx(0.05)
    assert step_limit(0.9, MASK_BT) == pytest.approx(0.025)
    assert step_limit(100.0, MASK_BT) == pytest.approx(0.05)


def test_step_kl_is_the_exact_one_in_expectation() -> None:
    """Two tokens drawn from one distribution of four: KL(before || after) of the sequence is twice that of a token."""
    before_V = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64).log()
    after_V = torch.tensor([0.2, 0.25, 0.5, 0.05], dtype=torch.float64).log()
    drawn = np.random.default_rng(0).choice(4, size=(20_000, 2), p=before_V.exp().numpy())
    tokens_BT = torch.from_numpy(drawn)
    mask_BT = torch.ones_like(tokens_BT, dtype=torch.bool)
    found = step_kl(before_V[tokens_BT], after_V[tokens_BT], mask_BT)
    assert found == pytest.approx(2 * float(exact_kl(before_V, after_V)), rel=0.03)


def test_drawn_back_a_step_keeps_its_direction_and_a_part_of_its_length() -> None:
    lm = tiny_lm()
    before = keep_weights(lm)
    after = {name: weight + torch.randn_like(weight) for name, weight in before.items()}
    lm.model.load_state_dict(after, strict=False)
    draw_back(lm, before, moved=0.9, limit=0.1)
    for name, weight in lm.model.named_parameters():
        torch.testing.assert_close(weight, before[name] + (after[name] - before[name]) / 3)
    draw_back(lm, before, moved=math.inf, limit=0.1)
    assert all(torch.equal(weight, before[name]) for name, weight in lm.model.named_parameters())


# ---------------------------------------------------------------- in the loop

PROMPTS = ("the cat", "the mat", "honey", "where")
RECIPE = Recipe(
    precision="float32",
    threads=1,
    immediate=Immediate(missing_end_score=None),
    sampling=Sampling(prompts=4, group_size=4, max_tokens=12),
    optimizer=Optimizer(lr=1e-3, target_kl=1.0),
)


class Letters:
    """More letters "e" are better."""

    version = "letters"

    def score(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> np.ndarray:
        return np.array([text.count("e") - 0.1 * len(text) for text in completions], dtype=np.float64)


def learner(recipe: Recipe = RECIPE) -> Learner:
    policy = tiny_lm()
    return Learner(policy, freeze_copy(policy), recipe)


def test_steps_that_are_far_too_large_end_at_the_limit() -> None:
    wild = replace(RECIPE, optimizer=replace(RECIPE.optimizer, lr=0.03))
    held = learner(wild)
    for iteration in range(3):
        metrics = held.iterate(PROMPTS, Letters(), iteration).metrics
        assert metrics["policy/step_kl"] < 1.2 / 36
    free = learner(replace(wild, optimizer=replace(wild.optimizer, target_kl=1e6)))
    assert free.iterate(PROMPTS, Letters(), 0).metrics["policy/step_kl"] > 2 / 36


def test_steps_that_went_too_far_shorten_the_next_ones() -> None:
    wild, calm = (
        learner(replace(RECIPE, optimizer=replace(RECIPE.optimizer, lr=rate, epochs=1))) for rate in (0.03, 1e-7)
    )
    for iteration in range(3):
        paces = [running.iterate(PROMPTS, Letters(), iteration).metrics["policy/pace"] for running in (wild, calm)]
    assert paces[0] < 0.1
    assert paces[1] == 1.0
    again = learner(wild.recipe)
    again.restore(wild.tensors())
    assert again.mover.updater.pace == wild.mover.updater.pace


def test_engine_and_update_agree_while_a_run_goes_on() -> None:
    running = learner()
    for iteration in range(2):
        metrics = running.iterate(PROMPTS, Letters(), iteration).metrics
        assert metrics["policy/engine_log_ratio"] < 1e-4
        assert metrics["policy/version_lag"] == metrics["policy/dropped_batches"] == 0


def test_weights_that_the_engine_does_not_have_end_the_run() -> None:
    running = learner()
    with torch.no_grad():
        running.policy.model.lm_head.weight.mul_(1.01)
    before = keep_weights(running.policy)
    with pytest.raises(TrainingError, match="weights that the engine was not given"):
        running.iterate(PROMPTS, Letters(), 0)
    assert all(torch.equal(before[name], weight) for name, weight in running.policy.model.named_parameters())


def aged(rollout: Rollout, versions: int, nats: float) -> Rollout:
    """The rollout as if sampled `versions` before, the first completion `nats` less likely."""

    def older(place: int, c: Completion) -> Completion:
        logprobs_T = c.logprobs_T.copy()
        logprobs_T[0] -= nats if place == 0 else 0.0
        return replace(c, weight_versions_T=c.weight_versions_T - versions, logprobs_T=logprobs_T)

    return replace(rollout, completions=tuple(older(place, c) for place, c in enumerate(rollout.completions)))


@pytest.mark.parametrize(
    ("versions", "nats", "dropped"), [(2, 0.0, 0), (3, 0.0, 1), (1, 9.0, 1)], ids=["lag 2", "lag 3", "low ess"]
)
def test_batches_that_are_too_old_are_dropped_and_counted(versions: int, nats: float, dropped: int) -> None:
    running = learner()
    scored = running.score(aged(running.sample(PROMPTS, "sample", 0), versions, nats), Letters()).scored
    before = keep_weights(running.policy)
    metrics = running.mover.move(scored, beta=0.1, gae_lambda=1.0, iteration=0, weight_version=0)
    assert metrics["policy/dropped_batches"] == dropped
    same = all(torch.equal(before[name], weight) for name, weight in running.policy.model.named_parameters())
    assert same is bool(dropped)
    again = learner()
    again.restore(running.tensors())
    assert again.mover.dropped_batches == dropped


def test_the_third_dropped_batch_in_a_row_ends_the_run() -> None:
    running = learner()
    fresh = running.score(running.sample(PROMPTS, "sample", 0), Letters()).scored
    old = running.score(aged(fresh.rollout, 3, 0.0), Letters()).scored

    def move(scored: ScoredRollout) -> None:
        running.mover.move(scored, beta=0.1, gae_lambda=1.0, iteration=0, weight_version=0)

    for scored in (old, old, fresh, old, old):
        move(replace(scored, old_logprobs_BT=running.mover.logprobs(scored)))
    with pytest.raises(TrainingError, match="3 weight versions old"):
        move(old)
    assert running.mover.dropped_batches == 5
