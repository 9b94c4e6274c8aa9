"""`rewardloop policy` while a gateway runs, and while nothing does."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from rewardloop.cli import main
from rewardloop.feedback.log.database import data_url
from rewardloop.feedback.log.event_log import EventLog, LogReader
from rewardloop.feedback.log.events import NewEvent
from rewardloop.loop.manifests import active_version, read_manifest
from rewardloop.loop.processes.operator_file import NAME, operator_file, read_operator
from rewardloop.loop.processes.supervisor import data_directory
from rewardloop.loop.weights import publish_version
from serving import OPERATORS, StubEngine, a_place


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """The exit code of `rewardloop policy ...`."""
    monkeypatch.setattr(sys, "argv", ["rewardloop", "policy", *map(str, arguments)])
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A place that ran before, and learned two versions."""
    folder = tmp_path / "data"
    folder.mkdir()
    with EventLog(data_url(folder)) as log:
        for version in (1, 2):
            weights = {"policy": {"weight": torch.full((3,), float(version))}}
            manifest = publish_version(folder / "weights", version, weights, model="town")
            body = {"version": version, "digest": manifest.digest, "last_seq": version, "feedback": 10 * version}
            metrics = {"held_out/win_rate": 0.61, "held_out/win_rate_low": 0.5, "held_out/win_rate_high": 0.7}
            published = {**body, "metrics": metrics}
            log.append([NewEvent(kind="policy.published", actor_id="learner", actor_kind="system", body=published)])
        held = {"version": 2, "passed": False, "reasons": ["length"], "metrics": {}}
        log.append([NewEvent(kind="policy.gated", actor_id="learner", actor_kind="system", body=held)])
    return folder


def decisions(data: Path) -> list[tuple[str, str, int]]:
    kinds = ("policy.activated", "policy.rolled_back", "policy.paused", "policy.resumed")
    with LogReader(data_url(data)) as log:
        return [(each.kind, each.actor_id, each.body.get("version", -1)) for each in log.read(0, kinds)]


def test_while_nothing_runs(data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "list", "--data", data) == 0
    shown = capsys.readouterr().out
    assert [word in shown for word in ("v2", "v1", "v0 (served)", "held: length", "0.61", "0.50 to 0.70")] == [True] * 6
    assert run(monkeypatch, "activate", 1, "--data", data, "--reason", "looks good") == 0
    assert run(monkeypatch, "activate", 2, "--data", data) == 0
    assert active_version(data / "weights") == 2
    assert run(monkeypatch, "rollback", "--data", data) == 0
    assert active_version(data / "weights") == 1
    assert run(monkeypatch, "pause", "--data", data, "--reason", "holidays") == 0
    assert run(monkeypatch, "pause", "--data", data) == 0
    assert run(monkeypatch, "list", "--data", data) == 0
    assert "holidays" in capsys.readouterr().out
    assert run(monkeypatch, "resume", "--data", data) == 0
    assert decisions(data) == [
        ("policy.activated", "operator", 1),
        ("policy.activated", "operator", 2),
        ("policy.rolled_back", "operator", 1),
        ("policy.paused", "operator", -1),
        ("policy.resumed", "operator", -1),
    ]
    engine = StubEngine(version=0)
    with a_place(data, engine) as place:  # the next start
        assert place.gateway.policy.serving == 1


def test_what_is_not_possible_is_one_line(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*arguments: object) -> str:
        assert run(monkeypatch, *arguments) == 2
        said = capsys.readouterr().err
        assert said.startswith("error: ")
        assert len(said.strip().splitlines()) == 1
        return said

    assert "no version 9" in refused("activate", 9, "--data", data)
    assert "go back to" in refused("rollback", "--data", data)
    assert "no database" in refused("list", "--data", data / "nowhere")
    read_manifest(data / "weights" / "v2.json").file().write_bytes(b"damaged")
    assert "damaged" in refused("activate", 2, "--data", data)
    with data_directory(data):  # a run that has not come far enough to say where it is
        assert "in use" in refused("activate", 1, "--data", data)
    assert decisions(data) == []
    assert active_version(data / "weights") is None


def test_while_a_gateway_runs(data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    engine = StubEngine(version=0)
    with a_place(data, engine) as place, operator_file(data, place.base) as token:
        place.gateway.operators = {**OPERATORS, "operator": token}
        assert run(monkeypatch, "activate", 1, "--data", data) == 0
        assert engine.version == 1
        assert run(monkeypatch, "activate", 9, "--data", data) == 2
        assert "no version 9" in capsys.readouterr().err
        assert run(monkeypatch, "rollback", "--data", data) == 0
        assert engine.version == 0
        assert run(monkeypatch, "pause", "--data", data) == 0
        assert run(monkeypatch, "list", "--data", data) == 0
        assert "learning is paused" in capsys.readouterr().out
    assert decisions(data) == [
        ("policy.activated", "operator", 1),
        ("policy.rolled_back", "operator", 0),
        ("policy.paused", "operator", -1),
    ]


def test_the_operators_file_is_for_one_pair_of_eyes(data: Path) -> None:
    with operator_file(data, "http://127.0.0.1:1") as token:
        assert (data / NAME).stat().st_mode & 0o777 == 0o600
        found = read_operator(data)
        assert found is not None
        assert (found.url, found.token) == ("http://127.0.0.1:1", token)
    assert read_operator(data) is None


def test_a_file_that_a_killed_run_left_is_no_gateway(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (data / NAME).write_text('{"url": "http://127.0.0.1:1", "token": "x"}')
    assert run(monkeypatch, "activate", 1, "--data", data) == 0
    assert active_version(data / "weights") == 1
