"""Curves as inline SVG: quiet axes, an interval band, a dashed line where nothing has changed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, log10

from rewardloop.evaluate.report import Chart, Point, Series, Unit
from rewardloop.evaluate.words import Words
from rewardloop.reward.calibration import Estimate

WIDTH, HEIGHT = 400, 200
LEFT, RIGHT, TOP, BOTTOM = 46, 10, 10, 26
DOTS_AT_MOST = 30


def format_value(value: float, unit: Unit) -> str:
    """A number as people write it: shares in percent, changes with their sign (a true minus)."""
    if unit == "share":
        text = f"{100 * value:.0f}\u202f%" if abs(value) >= 0.1 or value == 0 else f"{100 * value:.1f}\u202f%"
    elif unit == "count":
        text = f"{value:.0f}"
    else:
        digits = 2 if abs(value) < 10 else 1
        text = f"{value:+.{digits}f}" if unit == "signed" and value else f"{value:.{digits}f}"
    return _tidy(text)


def format_change(value: float, unit: Unit) -> str:
    """A difference, always with its sign; differences of shares in points of a hundred."""
    if unit == "share":
        return _tidy(f"{100 * value:+.1f}")
    return format_value(value, "signed")


def _tidy(text: str) -> str:
    """A true minus; no sign where nothing but zeros is left after rounding."""
    return text.replace("-", "−") if re.search("[1-9]", text) else text.lstrip("+-")


def nice_ticks(low: float, high: float, at_most: int = 5) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten apart) that cover [low, high]."""
    raw = max(high - low, 1e-9) / (at_most - 1)
    power = 10.0 ** floor(log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)
    first, last = floor(low / step + 1e-9), ceil(high / step - 1e-9)
    return [round(number * step, 10) for number in range(first, last + 1)]


def draw_chart(chart: Chart, words: Words) -> str:
    """The chart as an <svg> element; colors and type come from the page's style sheet."""
    frame = _fit(chart)
    parts = [_grid(chart, frame)]
    if chart.reference is not None:
        y = frame.y(chart.reference)
        parts.append(f'<line class="reference" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>')
    ground = HEIGHT - BOTTOM
    parts += [
        f'<line class="mark" x1="{frame.x(mark)}" x2="{frame.x(mark)}" y1="{ground - 7}" y2="{ground}"/>'
        for mark in chart.marks
    ]
    parts += [_draw_series(series, number, chart, frame, words) for number, series in enumerate(chart.series, start=1)]
    label = escape(f"{words(chart.name)}; {words(chart.x)}")
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">{"".join(parts)}</svg>'


def draw_interval(change: Estimate, reach: float) -> str:
    """A change as a dot with its whiskers on an axis from -reach to +reach; zero in the middle."""

    def x(value: float) -> float:
        return round(60 + 56 * max(-1.0, min(1.0, value / reach)), 1)

    line = f'<line class="whisker" x1="{x(change.low)}" x2="{x(change.high)}" y1="8" y2="8"/>'
    dot = f'<circle class="dot" cx="{x(change.value)}" cy="8" r="3.2"/>'
    zero = '<line class="zero" x1="60" x2="60" y1="1" y2="15"/>'
    return f'<svg class="interval" viewBox="0 0 120 16" aria-hidden="true">{zero}{line}{dot}</svg>'


@dataclass(frozen=True, slots=True)
class _Frame:
    """From values to places on the drawing."""

    x_ticks: list[float]
    y_ticks: list[float]
    x_low: float
    x_high: float

    def x(self, value: float) -> float:
        share = (value - self.x_low) / (self.x_high - self.x_low)
        return round(LEFT + share * (WIDTH - LEFT - RIGHT), 1)

    def y(self, value: float) -> float:
        low, high = self.y_ticks[0], self.y_ticks[-1]
        share = (value - low) / (high - low)
        return round(HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM), 1)


def _fit(chart: Chart) -> _Frame:
    points = [point for series in chart.series for point in series.points]
    xs = [point.x for point in points]
    values = [v for point in points for v in (point.value, point.low, point.high) if v is not None]
    values += [] if chart.reference is None else [chart.reference]
    low, high = min(values), max(values)
    if chart.unit == "share":
        low = 0.0
    if high - low < 1e-9:
        low, high = low - 0.5, high + 0.5
    x_low, x_high = min(xs), max(max(xs), min(xs) + 1e-9)
    ticks = [tick for tick in nice_ticks(x_low, x_high, 6) if x_low <= tick <= x_high]
    return _Frame(ticks, nice_ticks(low, high, 4), x_low, x_high)


def _grid(chart: Chart, frame: _Frame) -> str:
    rows = [
        f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{frame.y(tick)}" y2="{frame.y(tick)}"/>'
        f'<text class="tick" x="{LEFT - 7}" y="{frame.y(tick) + 4}" text-anchor="end">'
        f"{_tick(tick, chart.unit)}</text>"
        for tick in frame.y_ticks
    ]
    columns = [
        f'<text class="tick" x="{frame.x(tick)}" y="{HEIGHT - 9}" text-anchor="middle">{_tick(tick, "number")}</text>'
        for tick in frame.x_ticks
    ]
    return "".join(rows + columns)


def _tick(value: float, unit: Unit) -> str:
    """Axis numbers are round: no more digits than they need."""
    if unit == "share":
        return f"{100 * value:g}\u202f%".replace("-", "−")
    return (f"{value:+g}" if unit == "signed" and value else f"{value:g}").replace("-", "−")


def _draw_series(series: Series, number: int, chart: Chart, frame: _Frame, words: Words) -> str:
    points = series.points
    parts = [_band(points, frame)] if all(p.low is not None and p.high is not None for p in points) else []
    parts.append(f'<polyline class="line" points="{" ".join(_place(frame, p.x, p.value) for p in points)}"/>')
    shown = points if len(points) <= DOTS_AT_MOST else points[-1:]
    for point in shown:
        tip = f"{words(chart.x)} {point.x:g}: {describe_point(point, chart.unit)}"
        name, radius = ("dot last", 4) if point is points[-1] else ("dot", 2.4)
        parts.append(
            f'<circle class="{name}" cx="{frame.x(point.x)}" cy="{frame.y(point.value)}" r="{radius}">'
            f"<title>{escape(tip)}</title></circle>"
        )
    return f'<g class="s{number}">{"".join(parts)}</g>'


def _band(points: Sequence[Point], frame: _Frame) -> str:
    upper = [_place(frame, p.x, p.high) for p in points if p.high is not None]
    lower = [_place(frame, p.x, p.low) for p in reversed(points) if p.low is not None]
    return f'<polygon class="band" points="{" ".join(upper + lower)}"/>'


def _place(frame: _Frame, x: float, value: float) -> str:
    return f"{frame.x(x)},{frame.y(value)}"


def format_estimate(value: Estimate, unit: Unit) -> str:
    """A figure with its interval in brackets; a figure without one alone."""
    ends = (value.low, value.high) if value.low < value.high else (None, None)
    return describe_point(Point(0, value.value, *ends), unit)


def describe_point(point: Point, unit: Unit) -> str:
    """The value, with its interval in brackets where there is one."""
    text = format_value(point.value, unit)
    if point.low is None or point.high is None:
        return text
    return f"{text} [{format_value(point.low, unit)}, {format_value(point.high, unit)}]"
