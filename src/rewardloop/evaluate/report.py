"""What a run or a comparison found, as plain data. `page.write_report` makes a page and a JSON file of it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

from rewardloop.evaluate.defects import wilson_interval
from rewardloop.evaluate.token_rewards import TokenRewards
from rewardloop.reward.calibration import Estimate
from rewardloop.types import Prompt

Language = Literal["en", "zh"]
Unit = Literal["number", "signed", "share", "count"]
Better = Literal["higher", "lower", "neither"]
# A sentence of words.yaml by its name, alone or with what fills its gaps; or any other words, shown as they are.
Remark = str | Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Point:
    """One value on a curve, with its interval where there is one."""

    x: float
    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Series:
    """One line of a chart. Its name is a metric's, or plain words."""

    name: str
    points: tuple[Point, ...]


@dataclass(frozen=True, slots=True)
class Chart:
    """One to three lines over a common axis. Names are metrics' (the page has words for them) or plain."""

    name: str
    series: tuple[Series, ...]
    x: str = "loop/iteration"
    unit: Unit = "number"
    reference: float | None = None  # a dashed line: where nothing has changed, or a target
    marks: tuple[float, ...] = ()  # places on x where feedback arrived


@dataclass(frozen=True, slots=True)
class Figure:
    """One row of the table: a measure before and after, with intervals, and the change between them."""

    name: str
    after: Estimate
    before: Estimate | None = None
    change: Estimate | None = None
    unit: Unit = "number"
    better: Better = "neither"


@dataclass(frozen=True, slots=True)
class Answer:
    """One completion as it is shown: its text, the judge's score, the names of defects that it has."""

    text: str
    score: float | None = None
    defects: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Example:
    """The same prompt, answered before and after."""

    prompt: Prompt
    after: Answer
    before: Answer | None = None


@dataclass(frozen=True, slots=True)
class RunReport:
    """Everything the page shows. The verdict is drawn from the first figure that has a change."""

    title: str
    figures: tuple[Figure, ...]
    charts: tuple[Chart, ...] = ()
    examples: tuple[Example, ...] = ()
    token_rewards: tuple[TokenRewards, ...] = ()
    token_rewards_meaning: str = ""  # what the colors stand for: the name of a sentence of words.yaml
    warnings: tuple[Remark, ...] = ()  # e.g. why the run stopped early
    settings: Mapping[str, str] = field(default_factory=dict)


def report_json(report: RunReport) -> str:
    """The report as JSON, with the verdict spelled out."""
    values = {"verdict": verdict(report), **dataclasses.asdict(report)}
    return json.dumps(values, ensure_ascii=False, indent=1)


def verdict(report: RunReport) -> Literal["improved", "worse", "unproven", "single"]:
    """Improved or worse only where the interval of the change excludes zero; single: nothing is compared."""
    judged = main_figure(report)
    if judged is None or judged.change is None:
        return "single"
    sign = -1 if judged.better == "lower" else 1
    ends = sorted((sign * judged.change.low, sign * judged.change.high))
    if ends[0] > 0:
        return "improved"
    return "worse" if ends[1] < 0 else "unproven"


def main_figure(report: RunReport) -> Figure | None:
    """The figure that the verdict is about."""
    return next((figure for figure in report.figures if figure.change is not None), None)


# ---------------------------------------------------------------- curves of a run

# Which metrics become charts, in order: name, its lines, unit, dashed line.
_CHARTS: tuple[tuple[str, tuple[str, ...], Unit, float | None], ...] = (
    ("held_out/gain", ("held_out/gain",), "signed", 0.0),
    ("held_out/win_rate", ("held_out/win_rate",), "share", 0.5),
    ("held_out/wrong_facts", ("held_out/wrong_facts",), "share", None),
    ("held_out/topic_drift", ("held_out/topic_drift",), "share", None),
    ("held_out/rudeness", ("held_out/rudeness",), "share", None),
    ("policy/kl", ("policy/kl",), "number", None),
    ("potential", ("potential/explained_variance", "potential/gae_lambda"), "number", None),
    ("text/length", ("text/length",), "count", None),
    ("text/repetition", ("text/repetition",), "share", None),
)


def charts_of_run(points: Sequence[Mapping[str, float]], *, answers: int) -> tuple[Chart, ...]:
    """The charts of a run from its measurements, by the names of rewardloop.metrics, where they are there.

    Args:
        points: the measurements in order, each with loop/iteration.
        answers: held-out answers behind each share; gives the defects their intervals.
    """
    marks = tuple(
        after["loop/iteration"]
        for before, after in pairwise(points)
        if after.get("loop/events", 0) > before.get("loop/events", 0)
    )
    charts = [
        Chart(name, lines, unit=unit, reference=reference, marks=marks)
        for name, names, unit, reference in _CHARTS
        if (lines := tuple(line for n in names if len((line := _line(points, n, answers)).points) > 1))
    ]
    against_kl = _against_kl(points)
    return (*charts, against_kl) if against_kl else tuple(charts)


def _line(points: Sequence[Mapping[str, float]], name: str, answers: int) -> Series:
    kept = [point for point in points if name in point]
    return Series(name, tuple(_point(point["loop/iteration"], point, name, answers) for point in kept))


def _point(x: float, point: Mapping[str, float], name: str, answers: int) -> Point:
    value = point[name]
    if name.removeprefix("held_out/") in ("wrong_facts", "topic_drift", "rudeness"):
        share = wilson_interval(value, answers)
        return Point(x, value, share.low, share.high)
    return Point(x, value, point.get(f"{name}_low"), point.get(f"{name}_high"))


def _against_kl(points: Sequence[Mapping[str, float]]) -> Chart | None:
    """The learned reward and the judge against the distance travelled: where they part, it is being gamed."""
    measured = sorted(
        (point for point in points if "policy/kl" in point and "held_out/proxy" in point),
        key=lambda point: point["policy/kl"],
    )
    if len(measured) < 3:
        return None
    lines = tuple(
        Series(name, tuple(Point(point["policy/kl"], point[name]) for point in measured))
        for name in ("held_out/proxy", "held_out/gain")
    )
    return Chart("reward_against_kl", lines, x="policy/kl", unit="signed", reference=0.0)
