"""The curve of benchmarks/learning.py as a picture and a table: gain in gold reward against the number of judgments."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from statistics import mean, stdev

from scipy.stats import t as student

DEFECTS = ("wrong_facts", "topic_drift", "rudeness")
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 660, 340, 56, 170, 20, 46
GRAY, DENSE, TERMINAL = "#767676", "#0072b2", "#d55e00"  # told apart by the color-blind, on white and on black


@dataclass(frozen=True, slots=True)
class Condition:
    """Every seed under one condition."""

    events: int
    dense: bool
    iterations: int | None  # None: as many as the recipe gives to so many judgments
    runs: tuple[Mapping[str, float], ...]

    def mean_of(self, name: str) -> float:
        return mean(run[name] for run in self.runs)

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the mean gain over seeds (Student's t); the mean itself for one seed."""
        gains = [run["gain"] for run in self.runs]
        if len(gains) < 2:
            return gains[0], gains[0]
        half = float(student.ppf(0.975, len(gains) - 1)) * stdev(gains) / len(gains) ** 0.5
        return mean(gains) - half, mean(gains) + half


def draw_learning(source: Path, picture: Path) -> str:
    """Write the curve in `source`, a JSON file of the benchmark, to `picture` as SVG; returns the table, Markdown."""
    document = json.loads(source.read_text(encoding="utf-8"))
    attainable = next(f["value"] for f in document["figures"] if f["name"] == "attainable gain")
    conditions = gather(document["settings"]["runs"])
    picture.write_text(draw(conditions, attainable), encoding="utf-8")
    return table(conditions, attainable)


def gather(runs: Sequence[Mapping[str, float]]) -> list[Condition]:
    """The conditions in order: dense by number of judgments, then terminal, then with other numbers of iterations."""
    groups: dict[tuple[int, bool, int], list[Mapping[str, float]]] = {}
    for run in runs:
        iterations = int(run.get("iterations") or 0)
        groups.setdefault((iterations, not run["dense"], int(run["events"])), []).append(run)
    return [
        Condition(events, not terminal, iterations or None, tuple(group))
        for (iterations, terminal, events), group in sorted(groups.items(), key=lambda item: item[0])
    ]


def table(conditions: Sequence[Condition], attainable: float) -> str:
    """One row for each condition."""
    rows = [
        "| judgments | reward | gain in gold (95 %) | of the attainable | seeds above 0 | wrong facts | drift "
        "| rudeness | minutes a seed |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for one in conditions:
        low, high = one.interval
        above = sum(run["low"] > 0 for run in one.runs)
        cells = [
            f"{one.events}" + (f" ({one.iterations} iterations)" if one.iterations else ""),
            "dense" if one.dense else "terminal",
            f"{_signed(one.mean_of('gain'))} ({_signed(low)} to {_signed(high)})",
            f"{one.mean_of('gain') / attainable:.0%}",
            f"{above} of {len(one.runs)}",
            *(_signed(100 * one.mean_of(name), digits=0) for name in DEFECTS),
            f"{one.mean_of('seconds') / 60:.1f}",
        ]
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows)


def _signed(value: float, digits: int = 2) -> str:
    return f"{value:+.{digits}f}".replace("-", "−")


def draw(conditions: Sequence[Condition], attainable: float) -> str:
    """An SVG that stands alone: numbers of judgments at even distances, a bar for each 95 % interval."""
    events = sorted({one.events for one in conditions})
    step = (WIDTH - LEFT - RIGHT) / max(len(events) - 1, 1)
    top = attainable * 1.08
    low = min([0.0, *(one.interval[0] for one in conditions)]) - 0.04

    def x(number: int) -> float:
        return round(LEFT + step * events.index(number), 1)

    def y(gain: float) -> float:
        return round(HEIGHT - BOTTOM - (gain - low) / (top - low) * (HEIGHT - TOP - BOTTOM), 1)

    parts = [_text(x(number), HEIGHT - BOTTOM + 20, str(number)) for number in events]
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, "judgments"))
    for tick in (0.0, 0.2, 0.4, 0.6, 0.8):
        parts.append(_line(LEFT - 8, y(tick), WIDTH - RIGHT + 8, y(tick), GRAY, 'stroke-opacity="0.25"'))
        parts.append(_text(LEFT - 14, y(tick) + 4, f"{tick:+.1f}" if tick else "0", anchor="end"))
    parts.append(_line(LEFT - 8, y(attainable), WIDTH - RIGHT + 8, y(attainable), GRAY, 'stroke-dasharray="5 4"'))
    parts.append(_text(WIDTH - RIGHT + 14, y(attainable) + 4, "best of 64", anchor="start"))
    for dense, color, shift in ((True, DENSE, 0.0), (False, TERMINAL, 9.0)):
        shown = [one for one in conditions if one.dense is dense and one.iterations is None]
        points = [(x(one.events) + shift, y(one.mean_of("gain")), one) for one in shown]
        line = " ".join(f"{px},{py}" for px, py, _ in points)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{color}" stroke-width="2"/>')
        for px, py, one in points:
            parts.append(_line(px, y(one.interval[0]), px, y(one.interval[1]), color, 'stroke-width="2"'))
            parts.append(f'<circle cx="{px}" cy="{py}" r="4" fill="{color}"/>')
        if points:
            name = "reward at every token" if dense else "at the last token"
            parts.append(_text(points[-1][0] + 12, points[-1][1] + (4 if dense else 18), name, color, "start"))
    label = "Gain in gold reward on held-out prompts against the number of judgments"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}" '
        f'font-family="system-ui, sans-serif" font-size="13"><title>{label}</title>{"".join(parts)}</svg>\n'
    )


def _line(x1: float, y1: float, x2: float, y2: float, color: str, more: str = "") -> str:
    return f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="{color}" {more}/>'


def _text(x: float, y: float, text: str, color: str = GRAY, anchor: str = "middle") -> str:
    return f'<text x="{x}" y="{y}" fill="{color}" text-anchor="{anchor}">{escape(text)}</text>'
