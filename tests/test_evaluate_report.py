"""The report is one closed file that says what the figures say, and colors lose no character."""

from __future__ import annotations

import json
import re
import unicodedata
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from rewardloop.config import load_yaml
from rewardloop.evaluate.charts import draw_chart, format_change, format_value, nice_ticks
from rewardloop.evaluate.heatmap import END_MARK, to_html, to_rich
from rewardloop.evaluate.page import render_page, write_report
from rewardloop.evaluate.report import (
    Answer,
    Better,
    Chart,
    Example,
    Figure,
    Point,
    RunReport,
    Series,
    charts_of_run,
    verdict,
)
from rewardloop.evaluate.token_rewards import TokenRewards, color_scale, segments
from rewardloop.evaluate.words import read_resource
from rewardloop.reward.calibration import Estimate
from rewardloop.types import Message

ATTACK = "</style><script src='http://x'>alert(1)</script>&amp;"
VOID = {"meta"}


class Reader(HTMLParser):
    """Collects texts and attributes; fails on tags that do not match."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.text += data


def read(html: str) -> Reader:
    reader = Reader()
    reader.feed(html)
    assert reader.open == []
    return reader


def gain(low: float, value: float, high: float, better: Better = "higher") -> Figure:
    return Figure(
        "held_out/reward", Estimate(1, 0.9, 1.1), Estimate(0, -0.1, 0.1), Estimate(value, low, high), better=better
    )


def run_points() -> list[dict[str, float]]:
    return [
        {
            "loop/iteration": 6.0 * i,
            "loop/events": min(25.0 * i, 50.0),
            "held_out/gain": 0.1 * i,
            "held_out/gain_low": 0.1 * i - 0.05,
            "held_out/gain_high": 0.1 * i + 0.05,
            "held_out/proxy": 0.3 * i,
            "held_out/rudeness": 0.3 - 0.05 * i,
            "policy/kl": 2.0 * i,
        }
        for i in range(5)
    ]


def full_report() -> RunReport:
    prompt = (Message("user", f"Where is the honey? {ATTACK}"),)
    share = Figure(
        "held_out/rudeness",
        Estimate(0.1, 0.05, 0.15),
        Estimate(0.3, 0.2, 0.4),
        Estimate(-0.2, -0.3, -0.1),
        "share",
        "lower",
    )
    text = f"四 coins {ATTACK}"
    return RunReport(
        title=f"a run {ATTACK}",
        figures=(gain(0.2, 0.31, 0.4), share, Figure("policy/kl", Estimate(6.4, 6.4, 6.4))),
        charts=charts_of_run(run_points(), answers=100),
        examples=(
            Example(
                prompt,
                Answer(f"four coins a jar {ATTACK}", 1.0),
                Answer(f"nine coins a jar {ATTACK}", -1.0, ("rudeness",)),
            ),
            Example("Once", Answer(" upon")),
        ),
        token_rewards=(TokenRewards(prompt, text, ((0, 1), (1, len(text)), (len(text), len(text))), (0.5, -2.0, 0.1)),),
        warnings=(f"stopped {ATTACK}",),
        settings={"seed": "0", ATTACK: ATTACK},
    )


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_page_is_closed_and_escaped(language: str) -> None:
    html = render_page(full_report(), language)  # type: ignore[arg-type]
    reader = read(html)
    assert not {"script", "link", "img", "iframe", "object", "base", "form"} & set(reader.seen)
    assert not {"src", "href", "onload", "srcset"} & {name for name, _ in reader.attributes}
    assert not re.search(r"@import|url\(|expression\(", html)
    assert reader.text.count("<script src='http://x'>") >= 7  # shown as text, wherever it was given
    assert {"svg", "table", "del", "ins", "dl"} <= set(reader.seen)


def test_the_page_says_what_the_figures_say() -> None:
    text = read(render_page(full_report())).text
    assert "The model improved." in text
    assert "changed by +0.31, 95\u202f% interval +0.20 to +0.40" in text
    assert "Rude answers fell from 30\u202f% to 10\u202f%" in text
    chinese = read(render_page(full_report(), "zh")).text
    assert "模型进步了。" in chinese
    assert "粗鲁的回答从 30\u202f% 降到 10\u202f%。" in chinese


def test_a_defect_that_rose_is_said_even_if_the_reward_rose() -> None:
    rude = Figure(
        "held_out/rudeness", Estimate(0.4, 0.3, 0.5), Estimate(0.2, 0.1, 0.3), Estimate(0.2, 0.1, 0.3), "share", "lower"
    )
    text = read(render_page(RunReport("run", (gain(0.1, 0.2, 0.3), rude)))).text
    assert "Rude answers became more frequent: 20\u202f% before, 40\u202f% now." in text
    assert "No defect is proven" not in text


def test_verdict_needs_an_interval_without_zero() -> None:
    assert verdict(RunReport("", (gain(0.01, 0.3, 0.6),))) == "improved"
    assert verdict(RunReport("", (gain(-0.01, 0.3, 0.6),))) == "unproven"
    assert verdict(RunReport("", (gain(-0.6, -0.3, -0.1),))) == "worse"
    assert verdict(RunReport("", (gain(-0.6, -0.3, -0.1, better="lower"),))) == "improved"
    assert verdict(RunReport("", (Figure("policy/kl", Estimate(1, 1, 1)),))) == "single"


def test_both_files_are_written(tmp_path: Path) -> None:
    page = write_report(full_report(), tmp_path / "new")
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    stored = json.loads((tmp_path / "new" / "report.json").read_text(encoding="utf-8"))
    assert stored["verdict"] == "improved"
    assert stored["figures"][0]["change"] == {"value": 0.31, "low": 0.2, "high": 0.4}
    assert stored["charts"][0]["series"][0]["points"][4]["value"] == pytest.approx(0.4)


def test_every_word_has_both_languages() -> None:
    source = Path(__file__).parents[1] / "src/rewardloop/evaluate"
    words = load_yaml((source / "words.yaml").read_text(encoding="utf-8"), "words.yaml")
    assert all(len(pair) == 2 and all(isinstance(text, str) for text in pair) for pair in words.values())
    code = "".join((source / name).read_text(encoding="utf-8") for name in ("page.py", "sentences.py"))
    assert set(re.findall(r'words\("([^"]+)"\)', code)) <= set(words)
    shown = {chart.name for chart in full_report().charts} | {s.name for c in full_report().charts for s in c.series}
    assert shown <= set(words)


# ---------------------------------------------------------------- charts


def test_charts_of_a_run() -> None:
    charts = {chart.name: chart for chart in charts_of_run(run_points(), answers=100)}
    assert list(charts) == ["held_out/gain", "held_out/rudeness", "policy/kl", "reward_against_kl"]
    assert charts["held_out/gain"].marks == (6.0, 12.0)  # feedback arrived before these
    assert charts["held_out/gain"].series[0].points[1] == Point(6.0, 0.1, 0.05, pytest.approx(0.15))
    rude = charts["held_out/rudeness"].series[0].points[0]
    assert rude.low is not None
    assert rude.high is not None
    assert rude.low < 0.3 < rude.high
    assert [s.name for s in charts["reward_against_kl"].series] == ["held_out/proxy", "held_out/gain"]


def test_a_chart_puts_values_where_they_belong() -> None:
    """Three values at even steps: places at even steps, higher values higher up, the dashed line at its value."""
    points = tuple(Point(float(x), float(y)) for x, y in enumerate([0, 1, 2]))
    svg = draw_chart(Chart("c", (Series("s", points),), reference=1.0), str)
    match = re.search(r'class="line" points="([^"]+)"', svg)
    assert match
    (x0, y0), (x1, y1), (x2, y2) = [tuple(map(float, place.split(","))) for place in match[1].split()]
    assert x2 - x1 == pytest.approx(x1 - x0, abs=0.11)
    assert y0 - y1 == pytest.approx(y1 - y2, abs=0.11)
    assert y0 > y1 > y2
    assert f'class="reference" x1="46" x2="390" y1="{y1}"' in svg


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
def test_ticks_cover_and_are_few(low: float, width: float) -> None:
    ticks = nice_ticks(low, low + width)
    step = ticks[1] - ticks[0]
    assert ticks[0] <= low + 1e-6 * step
    assert ticks[-1] >= low + width - 1e-6 * step
    assert 2 <= len(ticks) <= 7


@pytest.mark.parametrize("values", [[0.5], [0.5, 0.5], [0.0, 0.0]])
def test_flat_curves_are_drawn(values: list[float]) -> None:
    points = tuple(Point(float(x), y, y, y) for x, y in enumerate(values))
    assert "nan" not in draw_chart(Chart("c", (Series("s", points),)), str)


def test_numbers_as_people_write_them() -> None:
    assert format_value(0.126, "share") == "13\u202f%"
    assert format_value(0.0263, "share") == "2.6\u202f%"
    assert format_value(-0.314, "signed") == "−0.31"
    assert format_value(132.4, "count") == "132"
    assert format_change(-0.2, "share") == "−20.0"
    assert format_change(8.8, "count") == "+8.80"


# ---------------------------------------------------------------- heat maps


def test_tokens_that_share_a_character_are_one_piece() -> None:
    scored = TokenRewards("", "a贝 b", ((0, 1), (1, 2), (1, 2), (2, 4), (4, 4)), (0.1, 0.2, 0.3, -1.0, 0.5))
    assert [(piece.text, piece.reward) for piece in segments(scored)] == [
        ("a", 0.1),
        ("贝", 0.5),
        (" b", -1.0),
        ("", 0.5),
    ]


@st.composite
def scored_texts(draw: st.DrawFn) -> TokenRewards:
    """Any text, cut anywhere, some tokens sharing characters or having none."""
    text = draw(st.text(max_size=20))
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), min_size=1, max_size=8)))
    offsets = [
        (a, draw(st.integers(b, min(b + 1, len(text))))) for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)
    ]
    ends = [max(end for _, end in offsets[: i + 1]) for i in range(len(offsets))]
    spans = tuple((start, end) for (start, _), end in zip(offsets, ends, strict=True))
    rewards = tuple(draw(st.floats(-3, 3)) for _ in spans)
    return TokenRewards("", text, spans, rewards)


@given(scored_texts())
def test_no_character_and_no_reward_is_lost(scored: TokenRewards) -> None:
    pieces = segments(scored)
    assert "".join(piece.text for piece in pieces) == scored.completion
    assert sum(piece.reward or 0 for piece in pieces) == pytest.approx(sum(scored.rewards), abs=1e-9)
    plain = to_rich(scored, color_scale([scored])).plain.replace(END_MARK, "")
    expected = scored.completion.replace(END_MARK, "")
    assert len(plain) == len(expected)
    assert all(a == b or unicodedata.category(b) == "Cc" for a, b in zip(plain, expected, strict=True))
    assert not any(unicodedata.category(a) == "Cc" and a not in "\n\t" for a in plain)


def test_color_and_underline_tell_reward_from_penalty() -> None:
    scored = TokenRewards("", "good <bad> so", ((0, 4), (4, 10), (10, 13)), (2.0, -2.0, 0.01))
    html = to_html(scored, 2.0)
    assert '<span class="up" style="--s:1.00" title="+2.00">good</span>' in html
    assert ' <span class="down" style="--s:1.00" title="-2.00">&lt;bad&gt;</span>' in html
    assert '<span title="+0.01"> so</span>' in html
    good, bad = to_rich(scored, 2.0).spans[:2]
    assert good.style.underline  # type: ignore[union-attr]
    assert bad.style.underline2  # type: ignore[union-attr]
    assert good.style.bgcolor != bad.style.bgcolor  # type: ignore[union-attr]
    console = Console(width=80, color_system=None)
    with console.capture() as captured:
        console.print(to_rich(scored, 2.0, numbers=True))
    assert captured.get() == "good+2.00  <bad>-2.00  so+0.01 \n"


def test_the_scale_ignores_one_outlier() -> None:
    scored = TokenRewards("", "x" * 41, tuple((i, i + 1) for i in range(41)), (100.0, *([1.0] * 40)))
    assert color_scale([scored]) == 1.0
    assert color_scale([]) == 1.0


def test_texts_that_share_little_are_not_struck_out() -> None:
    pair = Example("p", Answer("something else entirely, said anew"), Answer("nine coins a jar"))
    html = render_page(RunReport("", (gain(0, 1, 2),), examples=(pair,)))
    assert "<del>" not in html
    assert "something else entirely, said anew" in html


def test_a_remark_is_said_in_the_language_of_the_page() -> None:
    reason = {"name": "stop/kl_budget", "kl": "12.5", "allowed": "12.0"}
    report = RunReport("run", (gain(0.1, 0.2, 0.3),), warnings=(reason, "no_kl", "plain words"))
    assert "KL budget: 12.5 nats from the reference, 12.0 allowed" in read(render_page(report)).text
    chinese = read(render_page(report, "zh")).text
    assert "与参考模型相距 12.5 纳特，上限为 12.0" in chinese
    assert "两个模型的分词器不同" in chinese
    assert "plain words" in chinese


def test_every_reason_and_meaning_is_in_both_languages_with_the_same_gaps() -> None:
    table = load_yaml(read_resource("words.yaml"), "words.yaml")
    named = ("typicality", "shift", "foresight", "before_learning", *(name for name in table if name[:5] == "stop/"))
    assert len(named) == 10 + 1
    for name in named:
        english, chinese = table[name]
        assert re.search("[\u4e00-\u9fff]", chinese), name
        assert set(re.findall(r"{\w+}", english)) == set(re.findall(r"{\w+}", chinese)), name


def test_nothing_but_zeros_has_no_sign() -> None:
    assert [format_change(-0.0001, "share"), format_value(-0.001, "signed"), format_change(0.001, "number")] == [
        "0.0", "0.00", "0.00",
    ]  # fmt: skip
    assert format_change(-0.05, "share") == "−5.0"


def test_equal_answers_are_shown_once() -> None:
    same = Example("p", Answer("the same", 1.0), Answer("the same", 1.0))
    html = render_page(RunReport("", (gain(0, 1, 2),), examples=(same,)))
    assert html.count("the same") == 1
    assert "unchanged" in html
    alone = render_page(RunReport("", (), examples=(Example("p", Answer("x")),)))
    assert "<h2>Answers</h2>" in alone
    assert "Before" not in alone
