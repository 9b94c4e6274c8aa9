"""The loop, end to end on the built-in model: it learns, it resumes in the same bits, it keeps its promises."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rewardloop.errors import ConfigError, StoreError, TrainingError
from rewardloop.loop.journal import Journal
from rewardloop.loop.movement import _with_foresight, usual_lr
from rewardloop.loop.recipe import Asking, Optimizer, Recipe, Sampling
from rewardloop.loop.run import Outcome, Task, learn
from rewardloop.loop.tasks import simulated_task
from rewardloop.metrics import METRICS
from rewardloop.models.language_model import load_language_model
from rewardloop.optimize.methods import METHODS
from rewardloop.optimize.update import Updater, UpdateReport
from rewardloop.sandbox.builtin import builtin_model_folder
from rewardloop.sandbox.world import build_world
from rewardloop.types import Prompt

SMALL = Recipe(
    iterations=4,
    evaluate_every=2,
    reference_samples=64,
    precision="float32",
    threads=1,
    sampling=Sampling(prompts=4, group_size=4, max_tokens=24),
    asking=Asking(events=16, per_round=8, every=2),
    optimizer=Optimizer(lr=1e-3),
)


class Interrupted(Exception):
    """Stands for a kill between two iterations."""


def _task(recipe: Recipe) -> Task:
    people = ["careful", "careful", "adversarial"]
    return simulated_task(recipe, builtin_model_folder(), build_world(0), people, held_out=12)


def _run(folder: Path, *, stop_after: int | None = None, recipe: Recipe = SMALL) -> Outcome:
    def watch(metrics: dict[str, float]) -> None:
        if metrics["loop/iteration"] == stop_after:
            raise Interrupted

    return learn(_task(recipe), recipe, folder, watch)


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_language_model(folder / "policy").model.state_dict()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    _run(folder)
    return folder


def _steady(folder: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "loop/seconds"} for line in lines]


@pytest.mark.parametrize("stop_after", [1, 2, 3])
def test_killed_and_resumed_equals_uninterrupted_bit_for_bit(whole: Path, tmp_path: Path, stop_after: int) -> None:
    with pytest.raises(Interrupted):
        _run(tmp_path, stop_after=stop_after)
    _run(tmp_path)
    expected, resumed = _weights(whole), _weights(tmp_path)
    assert all(torch.equal(expected[name], resumed[name]) for name in expected)
    assert _steady(tmp_path) == _steady(whole)
    assert (tmp_path / "samples.jsonl").read_text() == (whole / "samples.jsonl").read_text()


def test_the_policy_moved_and_every_metric_is_known(whole: Path) -> None:
    base = load_language_model(builtin_model_folder()).model.state_dict()
    assert any(not torch.equal(base[name], value) for name, value in _weights(whole).items())
    lines = _steady(whole)
    assert [line["loop/iteration"] for line in lines] == [0, 1, 2, 3, 4]
    assert [line["loop/events"] for line in lines] == [8, 8, 16, 16, 16]
    assert {name for line in lines for name in line} <= METRICS.keys()
    assert ["people/worst_weight" in line for line in lines] == [True, False, True, False, False]
    assert 0 <= lines[2]["people/worst_weight"] < lines[2]["people/weight_mean"] <= 1


def test_a_run_that_has_ended_can_be_run_again(whole: Path, tmp_path: Path) -> None:
    again = shutil.copytree(whole, tmp_path / "again")
    outcome = _run(again)
    assert outcome.measurement.metrics["held_out/gain"] == pytest.approx(_steady(whole)[-1]["held_out/gain"], abs=1e-6)
    assert _steady(again) == _steady(whole)


def test_another_recipe_in_the_same_folder_is_refused(whole: Path) -> None:
    with pytest.raises(ConfigError, match="another recipe"):
        Journal(whole, Recipe(seed=9, threads=1)).resume()


def test_a_damaged_generation_is_named(tmp_path: Path) -> None:
    journal = Journal(tmp_path, SMALL)
    journal.resume()
    journal.save({"x": torch.zeros(3)})
    state = tmp_path / "generation" / "state.safetensors"
    state.write_bytes(state.read_bytes()[:-4])
    with pytest.raises(StoreError, match="damaged"):
        Journal(tmp_path, SMALL).resume()


class NotANumber:
    version = "broken"

    def score(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> np.ndarray:
        scores = np.zeros(len(completions))
        scores[0] = np.nan
        return scores


def test_a_reward_that_is_not_finite_stops_before_the_policy_moves(tmp_path: Path) -> None:
    task = _task(SMALL)
    task.rewards.source = NotANumber()  # type: ignore[misc]
    task.rewards.refit = lambda feedback, pool: None  # type: ignore[method-assign]
    before = {name: value.clone() for name, value in task.policy.model.state_dict().items()}
    with pytest.raises(TrainingError, match="nan"):
        learn(task, SMALL, tmp_path, lambda _: None)
    assert all(torch.equal(before[name], value) for name, value in task.policy.model.state_dict().items())
    assert not (tmp_path / "policy").exists()


def test_whoever_is_asked_more_is_learned_from_longer() -> None:
    def most(events: int, **settings: int) -> int:
        return Recipe(asking=Asking(events=events, **settings)).most_iterations

    # rounds of 25 every 4 iterations, the first before any: 1, 1, 2, 4 and 12 rounds; then 24 more
    assert [most(events) for events in (0, 25, 30, 100, 300)] == [24, 24, 28, 36, 68]
    assert most(100, per_round=50, every=6) == 30
    assert Recipe(iterations=7).most_iterations == 7


def test_the_learning_rate_falls_to_its_last_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shares, step = [], Updater.step

    def watched(self: Updater, *args: Any, lr_share: float, **settings: Any) -> UpdateReport:
        shares.append(lr_share)
        return step(self, *args, lr_share=lr_share, **settings)

    monkeypatch.setattr(Updater, "step", watched)
    _run(tmp_path)
    assert sorted(set(shares), reverse=True) == [1.0, 0.75, 0.5, 0.25]


def test_where_phi_foresees_it_is_the_only_baseline() -> None:
    """Elsewhere siblings stay: without them a rising reward would be one long push in any direction."""
    default = METHODS["default"]
    assert [_with_foresight(default, lam).baseline for lam in (1.0, 0.9, 0.8)] == ["loo_pos", "none", "none"]
    assert _with_foresight(METHODS["rloo"], 0.8) is METHODS["rloo"]


def test_the_usual_learning_rate_falls_with_size() -> None:
    rates = [usual_lr(round(size * 1e6)) for size in (0.3, 1, 3, 15, 7000)]
    assert rates == pytest.approx([4e-4, 4e-4, 1.19e-4, 2.03e-5, 3e-6], rel=0.01)
