"""The report as one HTML file: no script, no request, light and dark, in English or Chinese, fit to print."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from rewardloop.evaluate.charts import describe_point, draw_chart, draw_interval, format_change, format_value
from rewardloop.evaluate.heatmap import END_MARK, to_html
from rewardloop.evaluate.report import (
    Answer,
    Chart,
    Example,
    Figure,
    Language,
    Remark,
    RunReport,
    Unit,
    report_json,
    verdict,
)
from rewardloop.evaluate.sentences import describe, say
from rewardloop.evaluate.token_rewards import TokenRewards, color_scale
from rewardloop.evaluate.words import Words, load_words, read_resource
from rewardloop.feedback.edits import MOSTLY_REWRITTEN, find_changes, similarity
from rewardloop.files import write_text
from rewardloop.reward.calibration import Estimate
from rewardloop.types import Prompt


def write_report(report: RunReport, folder: Path, *, language: Language = "en", name: str = "report") -> Path:
    """Write `name`.json and `name`.html into `folder`, each whole or not at all; returns the page's path.

    Raises StoreError.
    """
    page = folder / f"{name}.html"
    write_text(folder / f"{name}.json", report_json(report))
    write_text(page, render_page(report, language))
    return page


def render_page(report: RunReport, language: Language = "en") -> str:
    """The whole page as text."""
    words = load_words(language)
    sections = [
        _header(report, words),
        _section("curves", words, _curves(report.charts, words)),
        _section("figures", words, _figures(report.figures, words)),
        _examples(report.examples, words),
        _section("token_rewards", words, _heat_maps(report, words)),
        _section("settings", words, _settings(report, words)),
        f"<footer>{words('made_by')}</footer>",
    ]
    return (
        f'<!doctype html>\n<html lang="{"zh-CN" if language == "zh" else "en"}"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{escape(report.title)}</title>\n<style>\n{read_resource('page.css')}</style></head>\n"
        f"<body><main>{''.join(sections)}</main></body></html>\n"
    )


# ---------------------------------------------------------------- the verdict


def _header(report: RunReport, words: Words) -> str:
    warnings = "".join(_remark(remark, words) for remark in report.warnings)
    if not report.figures:
        return f"<header><h1>{escape(report.title)}</h1>{warnings}</header>"
    found = verdict(report)
    details = re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", escape(describe(report, words)))
    lead = f'<p class="lead">{details}</p>' if details else ""
    return (
        f'<header class="{found}"><p class="eyebrow">{escape(report.title)}</p>'
        f"<h1>{words(found)}</h1>{lead}{warnings}</header>"
    )


def _remark(remark: Remark, words: Words) -> str:
    calm = " calm" if not isinstance(remark, str) and remark["name"] == "stop/converged" else ""
    return f'<p class="warning{calm}">{escape(say(remark, words))}</p>'


# ---------------------------------------------------------------- curves and figures


def _section(name: str, words: Words, body: str) -> str:
    return f'<section class="{name}"><h2>{words(name)}</h2>{body}</section>' if body else ""


def _curves(charts: Iterable[Chart], words: Words) -> str:
    charts = list(charts)
    if not charts:
        return ""
    notes = words("interval_note") + (" " + words("marks_note") if any(c.marks for c in charts) else "")
    return f'<div class="charts">{"".join(_chart(c, words) for c in charts)}</div><p class="note">{notes}</p>'


def _chart(chart: Chart, words: Words) -> str:
    if len(chart.series) == 1:
        key = f"<b>{describe_point(chart.series[0].points[-1], chart.unit)}</b>"
    else:
        key = " ".join(
            f'<span class="key s{number}">{escape(words(series.name))}</span>'
            for number, series in enumerate(chart.series, start=1)
        )
    caption = f"<figcaption><span>{escape(words(chart.name))}</span><span class='last'>{key}</span></figcaption>"
    return f"<figure>{caption}{draw_chart(chart, words)}<p class='axis'>{escape(words(chart.x))}</p></figure>"


def _figures(figures: Iterable[Figure], words: Words) -> str:
    figures = list(figures)
    if not figures:
        return ""
    compared = any(figure.change for figure in figures)
    columns = ["before", "after", "change"] if compared else ["after"]
    titles = "".join(f"<th>{words(column) if compared else ''}</th>" for column in columns)
    rows = "".join(_figure_row(figure, words, columns, _reach(figure.unit, figures)) for figure in figures)
    head = f"<thead><tr><th>{words('measure')}</th>{titles}{'<th></th>' if compared else ''}</tr></thead>"
    note = f'<p class="note">{words("figures_note")}</p>' if compared else ""
    return f"<table>{head}<tbody>{rows}</tbody></table>{note}"


def _reach(unit: Unit, figures: Iterable[Figure]) -> float:
    """Half the width of the interval drawings: one scale for all changes of one unit."""
    changes = [figure.change for figure in figures if figure.change and figure.unit == unit]
    return 1.1 * max((abs(end) for change in changes for end in (change.low, change.high)), default=1.0) or 1.0


def _figure_row(figure: Figure, words: Words, columns: list[str], reach: float) -> str:
    cells = {
        "before": _estimate(figure.before, figure.unit) if figure.before else "",
        "after": _estimate(figure.after, figure.unit),
        "change": _change(figure.change, figure.unit) if figure.change else "",
    }
    shown = "".join(
        f'<td data-label="{words(column) if len(columns) > 1 else ""}">{cells[column]}</td>' for column in columns
    )
    drawing = f"<td>{draw_interval(figure.change, reach) if figure.change else ''}</td>" if len(columns) > 1 else ""
    return f'<tr class="{_tone(figure)}"><th>{escape(words(figure.name))}</th>{shown}{drawing}</tr>'


def _change(change: Estimate, unit: Unit) -> str:
    value, low, high = (format_change(end, unit) for end in (change.value, change.low, change.high))
    return f"<b>{value}</b> <small>[{low}, {high}]</small>"


def _estimate(value: Estimate, unit: Unit) -> str:
    text = format_value(value.value, unit)
    if value.low == value.high:
        return text
    return f"{text} <small>[{format_value(value.low, unit)}, {format_value(value.high, unit)}]</small>"


def _tone(figure: Figure) -> str:
    """Good or bad news, where the interval excludes zero."""
    if figure.change is None or figure.better == "neither" or figure.change.low <= 0 <= figure.change.high:
        return "even"
    return "good" if (figure.change.value > 0) == (figure.better == "higher") else "bad"


# ---------------------------------------------------------------- texts


def _examples(examples: Sequence[Example], words: Words) -> str:
    compared = any(example.before for example in examples)
    shown = "".join(_example(example, words) for example in examples)
    return _section("examples" if compared else "answers", words, shown)


def _example(example: Example, words: Words) -> str:
    prompt = _prompt(example.prompt, words)
    if example.before is None or example.before.text == example.after.text:
        tag = "unchanged" if example.before else ""
        only = _answer(example.after, escape(example.after.text), tag, words)
        return f'<article>{prompt}<div class="pair">{only}</div></article>'
    old, new = _difference(example.before.text, example.after.text)
    pair = _answer(example.before, old, "before", words) + _answer(example.after, new, "after", words)
    return f'<article>{prompt}<div class="pair">{pair}</div></article>'


def _prompt(prompt: Prompt, words: Words) -> str:
    if isinstance(prompt, str):
        return f'<p class="prompt">{escape(prompt)}</p>'
    lines = (
        f'<p class="prompt {message.role}"><span>{words(message.role)}</span>{escape(message.content)}</p>'
        for message in prompt
    )
    return "".join(lines)


def _answer(answer: Answer, body: str, which: str, words: Words) -> str:
    title = f"<span>{words(which)}</span>" if which else ""
    score = "" if answer.score is None else f'<b class="score">{format_value(answer.score, "signed")}</b>'
    defects = "".join(f'<span class="defect">{escape(words(name))}</span>' for name in answer.defects)
    return f'<div class="answer {which}"><p class="tag">{title}{score}{defects}</p><p class="text">{body}</p></div>'


def _difference(before: str, after: str) -> tuple[str, str]:
    """Both texts with what was taken away struck out, and what is new underlined.

    Texts that share little are shown plain: marks on every word help nobody.
    """
    if similarity(before, after) < 1 - MOSTLY_REWRITTEN:
        return escape(before), escape(after)
    old, new = "", ""
    for change in find_changes(before, after):
        gone, come = (
            escape(before[change.start : change.end]),
            escape(after[change.new_start : change.new_end]),
        )
        if change.kind == "kept":
            old, new = old + gone, new + come
        else:
            old += f"<del>{gone}</del>" if gone else ""
            new += f"<ins>{come}</ins>" if come else ""
    return old, new


def _heat_maps(report: RunReport, words: Words) -> str:
    if not report.token_rewards:
        return ""
    scale = color_scale(report.token_rewards)
    low, high = _ends(report.token_rewards_meaning, words)
    ends = f"{low} −{scale:.2f}", f"+{scale:.2f} {high}"
    legend = f'<p class="legend"><span>{ends[0]}</span><i></i><span>{ends[1]}</span></p>'
    said = words(report.token_rewards_meaning) if report.token_rewards_meaning else ""
    if any(start == end for scored in report.token_rewards for start, end in scored.offsets):
        said = words("sentence_space").join([said, words("end_note").format(mark=END_MARK)]).strip()
    meaning = f'<p class="note">{escape(said)}</p>' if said else ""
    return meaning + legend + "".join(_heat_map(scored, scale, words) for scored in report.token_rewards)


def _ends(meaning: str, words: Words) -> tuple[str, str]:
    """What the two ends of the color scale are called."""
    low, high = f"{meaning}/low", f"{meaning}/high"
    return (words(low), words(high)) if words(low) != low else (words("penalty"), words("reward"))


def _heat_map(scored: TokenRewards, scale: float, words: Words) -> str:
    total = f"<small>Σ {format_value(sum(scored.rewards), 'signed')}</small>"
    if isinstance(scored.prompt, str):  # a text that goes on, not a question that is answered
        above, begun = "", f'<span class="begun">{escape(scored.prompt)}</span>'
    else:
        above, begun = _prompt(scored.prompt, words), ""
    return f'<article>{above}<p class="text heat">{begun}{to_html(scored, scale)} {total}</p></article>'


def _settings(report: RunReport, words: Words) -> str:
    rows = "".join(
        f"<div><dt>{escape(words(name))}</dt><dd>{escape(str(value))}</dd></div>"
        for name, value in report.settings.items()
    )
    return f"<dl>{rows}</dl>" if rows else ""
