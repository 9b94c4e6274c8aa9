"""What the figures say, in sentences. Numbers that matter stand between **."""

from __future__ import annotations

from collections.abc import Iterable

from rewardloop.evaluate.charts import format_change, format_value
from rewardloop.evaluate.defects import NON_INFERIORITY
from rewardloop.evaluate.report import Figure, Remark, RunReport, main_figure, verdict
from rewardloop.evaluate.words import Words


def say(remark: Remark, words: Words) -> str:
    """A remark in the words of the page."""
    return words(remark) if isinstance(remark, str) else words(remark["name"]).format(**remark)


def describe(report: RunReport, words: Words) -> str:
    """The change that the verdict is about, with its interval, and what the defects did."""
    sentences = [*_change_sentence(report, words), *_defect_sentences(report.figures, words)]
    return words("sentence_space").join(sentences)


def _change_sentence(report: RunReport, words: Words) -> list[str]:
    figure = main_figure(report)
    if figure is None or figure.change is None:
        return []
    proven = verdict(report) != "unproven"
    value, low, high = (
        format_change(end, figure.unit) for end in (figure.change.value, figure.change.low, figure.change.high)
    )
    sentence = words("change_sentence" if proven else "unproven_sentence")
    return [sentence.format(name=words(figure.name), change=f"**{value}**", low=low, high=high)]


def _defect_sentences(figures: Iterable[Figure], words: Words) -> list[str]:
    """Those defects that are proven to have risen or fallen; else that none has risen."""
    compared = [f for f in figures if f.name.startswith("held_out/") and f.better == "lower" and f.before and f.change]
    worse = [f for f in compared if f.change and f.change.low > NON_INFERIORITY]
    better = [f for f in compared if f.change and f.change.high < 0]
    sentences = [_defect_sentence("defect_worse", f, words) for f in worse]
    sentences += [_defect_sentence("defect_better", f, words) for f in better]
    if len(better) < len(compared) and not worse:
        sentences.append(words("defects_not_worse"))
    return sentences


def _defect_sentence(kind: str, figure: Figure, words: Words) -> str:
    assert figure.before is not None
    before, after = (format_value(side.value, figure.unit) for side in (figure.before, figure.after))
    return words(kind).format(name=words(figure.name), before=before, after=f"**{after}**")
