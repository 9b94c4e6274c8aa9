"""`optimize` through its front door: a policy, a reward from one half of the judgments, a judge from the other."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from rewardloop.cli.optimize import optimize
from rewardloop.cli.train_reward import train_reward
from rewardloop.feedback.records import write_feedback
from rewardloop.types import Preference

SMALL = ("iterations=3", "evaluate_every=1", "reference_samples=64", "threads=1", "sampling.prompts=4")


def _judgments(path: Path) -> Path:
    """Short endings are better."""
    pairs = [
        Preference(prompt=f"Story {i}", first=f" The cat number {i} ran home.", second=" It went", choice=choice)
        for i, choice in enumerate(["first"] * 50 + ["second"] * 10)
    ]
    write_feedback(path, pairs)
    return path


@pytest.mark.data
def test_reward_against_kl_with_a_second_judge(shared: Path, tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), width=200)
    policy = str(shared / "models" / "stories260K")
    settings: dict[str, Any] = {"layout": None, "held_out": 0.2, "frozen": True, "epochs": 1, "lr": None, "seed": 0}
    feedback = _judgments(tmp_path / "feedback.jsonl")
    for half in ("a", "b"):
        train_reward([feedback], tmp_path / half, backbone=policy, half=half, console=console, **settings)
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("\n".join(f"{name} the {n}" for name in ("Tom", "Ann") for n in range(50)), encoding="utf-8")
    overrides = [*SMALL, "sampling.max_tokens=12"]
    optimize(policy, tmp_path / "a", prompts, tmp_path / "b", tmp_path / "run", None, overrides, console)

    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    # The judge's zero and unit are the reference's answers, whose mean is therefore 0: a gain is a mean.
    assert all(line["held_out/gain"] == pytest.approx(line["held_out/reward"], abs=2e-6) for line in lines)
    assert all(line["policy/step_kl"] < 0.25 for line in lines[1:])
    report = json.loads((tmp_path / "run/report.json").read_text())
    (chart,) = [chart for chart in report["charts"] if chart["name"] == "reward_against_kl"]
    assert [line["name"] for line in chart["series"]] == ["held_out/proxy", "held_out/gain"]
    samples = [json.loads(line) for line in (tmp_path / "run/samples.jsonl").read_text().splitlines()]
    assert {sample["iteration"] for sample in samples} == {0, 1, 2, 3}
