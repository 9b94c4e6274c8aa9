"""The benchmark of learning: finished runs are not run again; its curve and table say what the runs gave."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
learning = pytest.importorskip("learning")
learning_curve = pytest.importorskip("learning_curve")

SVG = "{http://www.w3.org/2000/svg}"


def _run(events: int, dense: bool, gain: float, low: float = 0.1, iterations: int | None = None) -> dict[str, float]:
    defects = {"wrong_facts": -0.125, "topic_drift": -0.25, "rudeness": 0.0}
    return {
        "events": events,
        "dense": dense,
        "gain": gain,
        "low": low,
        "seconds": 90.0,
        "iterations": iterations,
    } | defects


RUNS = [_run(30, True, gain) for gain in (0.3, 0.5, 0.4, 0.4)]
RUNS += [_run(100, True, gain, low) for gain, low in ((0.8, 0.2), (0.6, -0.1))]
RUNS += [_run(100, False, 0.5), _run(30, True, 0.9, iterations=68)]


def test_finished_runs_are_not_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(learning, "_in_process", lambda script, verb, argument: asked.append(argument) or {"gain": 0.5})
    first = learning.Kept(tmp_path / "x.json.runs")
    assert [first.result("run", "a"), first.result("run", "a")] == [{"gain": 0.5}] * 2
    again = learning.Kept(tmp_path / "x.json.runs")
    assert again.result("run", "a") == {"gain": 0.5}
    assert asked == ["a"]
    again.result("attainable", "a")
    assert asked == ["a", "a"]


def test_the_interval_is_that_of_the_mean_over_seeds() -> None:
    condition = learning_curve.gather(RUNS)[0]
    # mean .4, sd sqrt(.02 / 3) = .08165, over sqrt(4) = .0408; t of 3 degrees of freedom at 97.5 % is 3.182
    assert condition.interval == pytest.approx((0.4 - 3.1824 * 0.040825, 0.4 + 3.1824 * 0.040825), abs=1e-4)


def test_the_table_has_a_row_for_each_condition(tmp_path: Path) -> None:
    source, picture = tmp_path / "l.json", tmp_path / "l.svg"
    figures = [{"name": "attainable gain", "value": 1.0}]
    source.write_text(json.dumps({"figures": figures, "settings": {"runs": RUNS}}))
    rows = [line.split(" | ") for line in learning_curve.draw_learning(source, picture).splitlines()[2:]]
    assert [row[:2] for row in rows] == [
        ["| 30", "dense"],
        ["| 100", "dense"],
        ["| 100", "terminal"],
        ["| 30 (68 iterations)", "dense"],
    ]
    assert rows[1][2].startswith("+0.70 (−0.57 to +1.97)")
    assert rows[1][3:8] == ["70%", "1 of 2", "−12", "−25", "+0"]
    assert ElementTree.parse(picture).getroot().tag == f"{SVG}svg"  # noqa: S314  our own file


def test_the_picture_puts_more_gain_higher_and_more_judgments_to_the_right() -> None:
    root = ElementTree.fromstring(learning_curve.draw(learning_curve.gather(RUNS), 1.0))  # noqa: S314  our own
    few, many, terminal = [(float(c.get("cx")), float(c.get("cy"))) for c in root.iter(f"{SVG}circle")]
    assert few[0] < many[0] < terminal[0]
    assert many[1] < terminal[1] < few[1]  # 0.7, 0.5, 0.4: the axis of SVG points down
    ticks = {t.text: float(t.get("y")) for t in root.iter(f"{SVG}text")}
    assert few[1] == pytest.approx((ticks["+0.4"] - 4), abs=0.2)
