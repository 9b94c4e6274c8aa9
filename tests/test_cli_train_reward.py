"""`train-reward` through its front door: files in, a folder, a table and a report out."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from rewardloop.cli.train_reward import train_reward
from rewardloop.errors import ConfigError
from rewardloop.feedback.pairs import annotator_agreement, decided_pairs
from rewardloop.feedback.prompts import read_prompts
from rewardloop.feedback.records import write_feedback
from rewardloop.reward.storage import load_reward
from rewardloop.types import Edit, Feedback, Preference, Ranking, Rating


def test_decided_pairs_of_every_kind() -> None:
    feedback: list[Feedback] = [
        Preference(prompt="p", first="a", second="b", choice="second"),
        Preference(prompt="p", first="a", second="b", choice="tie"),
        Edit(prompt="p", completion="worse", corrected="better"),
        Ranking(prompt="p", completions=("x", "y", "z"), ranks=(1, 2, 2)),
        Rating(prompt="q", completion="low", value=1),
        Rating(prompt="q", completion="high", value=5),
    ]
    pairs = decided_pairs(feedback)
    won = {
        (first, second) if first_won else (second, first)
        for first, second, first_won in zip(pairs.firsts, pairs.seconds, pairs.first_won_B, strict=True)
    }
    assert won == {("b", "a"), ("better", "worse"), ("x", "y"), ("x", "z"), ("high", "low")}
    assert len(pairs) == 5
    assert set(pairs.clusters) == {"p", "q"}


def test_agreement_counts_meetings_of_two_people() -> None:
    def vote(annotator: str | None, choice: Any, first: str = "a", second: str = "b") -> Preference:
        return Preference(prompt="p", first=first, second=second, choice=choice, annotator=annotator)

    # Ann and Bob agree though they saw the sides swapped; Cyd agrees with neither; a tie and nobody do not meet
    votes = [vote("Ann", "first"), vote("Bob", "second", "b", "a"), vote("Cyd", "second"), vote("Dee", "tie")]
    assert annotator_agreement([*votes, vote(None, "first")]) == (pytest.approx(1 / 3), 3)
    assert annotator_agreement(votes[:1]) is None


def run(console: Console, feedback: Path, out: Path, backbone: Path, **options: Any) -> None:
    settings: dict[str, Any] = {
        "layout": None,
        "held_out": 0.3,
        "half": None,
        "frozen": True,
        "epochs": 1,
        "lr": None,
        "seed": 0,
    }
    train_reward([feedback], out, backbone=str(backbone), console=console, **(settings | options))


@pytest.fixture(scope="module")
def feedback(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("feedback") / "feedback.jsonl"
    pairs = [
        Preference(prompt=f"Story {i}", first=" The end", second=" The cat sat and sat.", choice="second")
        for i in range(60)
    ]
    pairs += [
        Preference(prompt=f"Story {i}", first=" A dog ran home.", second=" Go", choice="first") for i in range(60, 120)
    ]
    write_feedback(path, pairs)
    return path


@pytest.mark.data
@pytest.mark.parametrize("frozen", [True, False])
def test_a_reward_is_trained_measured_and_saved(shared: Path, feedback: Path, tmp_path: Path, frozen: bool) -> None:
    screen = io.StringIO()
    out = tmp_path / "reward"
    run(Console(file=screen, width=100), feedback, out, shared / "models" / "stories260K", frozen=frozen)
    shown = screen.getvalue()
    assert "layout rewardloop" in shown
    for row in ("reward model", "bag of words + length", "longer wins"):
        assert row in shown
    report = json.loads((out / "report.json").read_text())
    assert report["pairs"] == 36
    names = ["reward model", "reward model + length", "bag of words + length", "longer wins"]
    assert [judge["name"] for judge in report["judges"]] == names
    assert report["judges"][0]["accuracy"]["value"] > 0.9
    assert report["judges"][3]["accuracy"]["value"] == 1.0
    assert "no better than a baseline" in shown  # the longer text always won here
    model = load_reward(out)
    assert model.version in shown
    better, worse = model.score(["Story", "Story"], [" The cat sat and sat.", " The end"])
    assert better > worse
    assert len(read_prompts(out)) == 84


@pytest.mark.data
def test_the_two_halves_share_no_prompt(shared: Path, feedback: Path, tmp_path: Path) -> None:
    backbone = shared / "models" / "stories260K"
    for half in ("a", "b"):
        run(Console(file=io.StringIO()), feedback, tmp_path / half, backbone, half=half)
    one, two = (set(read_prompts(tmp_path / half)) for half in ("a", "b"))
    assert one.isdisjoint(two)
    assert len(one | two) == 84
    assert load_reward(tmp_path / "a").version != load_reward(tmp_path / "b").version


def test_options_without_a_meaning_are_refused(feedback: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--half is 'c'"):
        run(Console(file=io.StringIO()), feedback, tmp_path / "x", tmp_path, half="c")
    with pytest.raises(ConfigError, match="--frozen"):
        run(Console(file=io.StringIO()), feedback, tmp_path / "x", tmp_path, lr=1e-4)
    assert not (tmp_path / "x").exists()
