"""The benchmarks' harness: figures, pairs, alternation, workers, the file it writes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
harness = pytest.importorskip("harness")


def test_spread_is_the_median_between_smallest_and_largest() -> None:
    figure = harness.spread("s", [3.0, 1.0, 2.0, 10.0])
    assert (figure.value, figure.low, figure.high, figure.target, figure.met) == (2.5, 1.0, 10.0, None, None)


def test_ratio_is_taken_pair_by_pair() -> None:
    # A busy minute hits both of the second pair: 2/1, 20/10, 6/2. The ratio of medians would be 6/2 = 3.
    figure = harness.ratio("x", [2.0, 20.0, 6.0], [1.0, 10.0, 2.0], target=2.5)
    assert (figure.value, figure.low, figure.high, figure.met) == (2.0, 2.0, 3.0, False)
    with pytest.raises(ValueError, match="shorter"):
        harness.ratio("x", [1.0, 2.0], [1.0])


@pytest.mark.parametrize(("better", "value", "met"), [("higher", 3, True), ("lower", 3, False), ("lower", 2, True)])
def test_targets_point_somewhere(better: str, value: float, met: bool) -> None:
    assert harness.spread("x", [value], target=2.5, better=better).met is met


def test_contenders_run_in_turn() -> None:
    order: list[str] = []
    results = harness.alternate(
        {"a": lambda: order.append("a") or len(order), "b": lambda: order.append("b") or len(order)}, rounds=2
    )
    assert order == ["a", "b", "a", "b"]
    assert results == {"a": [1, 3], "b": [2, 4]}


def test_json_holds_figures_versions_settings_and_nothing_else(tmp_path: Path) -> None:
    options = harness.parse_options("doc", ["--quick", "--json", str(tmp_path / "new" / "b.json"), "--threads", "1"])
    harness.report("t", [harness.spread("x", [1.0, 2.0, 4.0], target=3, better="lower")], options, {"rounds": 1})
    document = json.loads((tmp_path / "new" / "b.json").read_text())
    assert document["figures"] == [{"name": "x", "value": 2.0, "low": 1.0, "high": 4.0, "target": 3, "better": "lower"}]
    assert set(document) == {"figures", "versions", "settings"}
    assert document["settings"] == {"quick": True, "threads": 1, "rounds": 1}
    assert {"python", "torch", "cpu"} <= set(document["versions"])


def test_a_worker_is_timed_and_weighed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sleeper.py").write_text(
        "import time, sys\nfrom harness import announce_step\nfill = b'x' * 64_000_000\n"
        "for seconds in map(float, sys.argv[1:]):\n    time.sleep(seconds)\n    announce_step()\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    run = harness.run_worker("sleeper", 0.3, 0.1, 0.2, threads=1)
    assert run.first_step_s > 0.3
    assert len(run.step_s) == 2
    assert run.first_step_s + sum(run.step_s) > 0.5  # it slept for 0.6
    assert 64_000_000 < run.peak_bytes < 300_000_000


def test_a_failing_worker_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken.py").write_text("raise SystemExit('no room left')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(harness.WorkerError, match="no room left"):
        harness.run_worker("broken", threads=1)


def test_a_missing_competitor_is_named() -> None:
    with pytest.raises(SystemExit, match="pip install no_such_package"):
        harness.require("json", "no_such_package")
