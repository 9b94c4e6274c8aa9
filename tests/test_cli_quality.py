"""The verbs on people: tables for eyes, JSON for programs, refusals in words."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from crowds import Person, ask
from rewardloop.cli.quality import agreement, annotators
from rewardloop.errors import DataError
from rewardloop.feedback.records import write_feedback
from rewardloop.types import Preference


@pytest.fixture
def file(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    people = [*(Person(f"honest {n}") for n in range(5)), Person("opposite", -1.0)]
    write_feedback(tmp_path / "said.jsonl", ask(rng, rng.normal(0, 1.5, 6), people, 80))
    return tmp_path / "said.jsonl"


def test_tables_name_who_says_the_opposite(file: Path) -> None:
    console = Console(record=True, width=160)
    annotators([file], None, None, False, console)
    agreement([file], None, False, console)
    said = console.export_text()
    first = next(line for line in said.splitlines() if "80" in line)
    assert "opposite" in first
    assert "says the opposite" in first
    assert "preference" in said


def test_json_is_complete(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    annotators([file], None, "overall", True, Console(width=40))
    people = json.loads(capsys.readouterr().out)
    assert {person["annotator"] for person in people} == {*(f"honest {n}" for n in range(5)), "opposite"}
    assert people[0]["weight"] == 0
    assert people[0]["consistency"]["repeats"] > 0
    agreement([file], None, True, Console(width=40))
    assert json.loads(capsys.readouterr().out)[0]["question"]["kind"] == "preference"


def test_what_cannot_be_said_is_refused(tmp_path: Path) -> None:
    write_feedback(tmp_path / "one.jsonl", [Preference(prompt="p", first="x", second="y", choice="first")])
    with pytest.raises(DataError, match="no two named people"):
        agreement([tmp_path / "one.jsonl"], None, False, Console())
    with pytest.raises(DataError, match="no judgment names"):
        annotators([tmp_path / "one.jsonl"], None, None, False, Console())
