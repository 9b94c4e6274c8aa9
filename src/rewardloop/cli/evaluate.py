"""`rewardloop evaluate`: one model, or before against after, on held-out prompts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from rewardloop.cli.exam import Asked, Exam, prepare_exam
from rewardloop.evaluate.charts import format_change, format_estimate
from rewardloop.evaluate.comparison import Judged, compare, compare_means, judge_answers, pick_examples
from rewardloop.evaluate.facts import read_choices, score_choices
from rewardloop.evaluate.page import write_report
from rewardloop.evaluate.report import Figure, Language, RunReport, verdict
from rewardloop.evaluate.sentences import describe
from rewardloop.evaluate.token_rewards import TokenRewards
from rewardloop.evaluate.typicality import SHIFT, TYPICALITY, shift, typicality
from rewardloop.evaluate.words import Words, load_words
from rewardloop.models.language_model import LanguageModel, load_language_model
from rewardloop.models.packed import forward_completions
from rewardloop.rollout.engine import Engine
from rewardloop.rollout.sampling import sample_rollout
from rewardloop.types import Completion

EXAMPLES, HEAT_MAPS = 8, 6


@dataclass(frozen=True, slots=True)
class Sampling:
    """How answers are drawn for the comparison."""

    per_prompt: int = 2
    max_tokens: int = 64
    temperature: float = 1.0  # above 0
    seed: int = 0


def evaluate(
    model: str | Path,
    before: str | Path | None,
    out: Path,
    console: Console,
    *,
    asked: Asked,
    sampling: Sampling = Sampling(),
    language: Language = "en",
) -> RunReport:
    """Measure `model`, against `before` if it is given; write report.json and report.html into `out`.

    Raises ConfigError, DataError, ModelError, StoreError.
    """
    exam = prepare_exam(asked, sampling.seed)
    after_lm = load_language_model(model)
    before_lm = None if before is None else load_language_model(before)
    after = _answers(after_lm, exam, sampling)
    earlier = None if before_lm is None else _answers(before_lm, exam, sampling)
    kl_B = None if before_lm is None else log_ratios(after_lm, before_lm, after.completions, sampling.temperature)
    figures = compare(after, earlier, kl_B=kl_B, measures=exam.measures)
    if asked.choices is not None:
        figures += _choice_figures(asked.choices, after_lm, before_lm)
    report = RunReport(
        title=" → ".join(_short_name(lm) for lm in (before_lm, after_lm) if lm is not None),
        figures=figures,
        examples=pick_examples(after, earlier, EXAMPLES),
        token_rewards=_heat_maps(after_lm, before_lm, earlier or after),
        token_rewards_meaning=TYPICALITY if kl_B is None else SHIFT,
        warnings=("no_kl",) if kl_B is None and before_lm is not None else (),
        settings=_settings(exam, sampling),
    )
    page = write_report(report, out, language=language)
    show(report, console, language)
    console.print(f"report: {page}", highlight=False, soft_wrap=True)
    return report


def show(report: RunReport, console: Console, language: Language = "en") -> None:
    """The verdict and the figures on the screen."""
    words = load_words(language)
    details = re.sub(r"\*\*(.+?)\*\*", r"\1", describe(report, words))
    console.print(f"{words(verdict(report))} {details}", highlight=False, markup=False)
    compared = any(figure.change for figure in report.figures)
    table = Table(box=None, pad_edge=False)
    for column in ("measure", *(("before", "after", "change") if compared else ("after",))):
        table.add_column(words(column))
    for figure in report.figures:
        table.add_row(*_cells(figure, words, compared))
    console.print(table)


def log_ratios(
    after: LanguageModel, before: LanguageModel, completions: Sequence[Completion], temperature: float
) -> np.ndarray | None:
    """log pi_after - log pi_before of each completion, [B]; None where the two have different tokenizers."""
    if after.tokenizer.get_vocab() != before.tokenizer.get_vocab():
        return None
    prompt_ids, token_ids = ([getattr(c, name) for c in completions] for name in ("prompt_ids", "token_ids"))
    sums = [
        forward_completions(lm.model, prompt_ids, token_ids, temperature=temperature).logprobs_BT.sum(-1)
        for lm in (after, before)
    ]
    ratios_B: np.ndarray = (sums[0] - sums[1].to(sums[0].device)).double().cpu().numpy()
    return ratios_B


def _answers(lm: LanguageModel, exam: Exam, sampling: Sampling) -> Judged:
    completions = sample_rollout(
        Engine(lm),
        exam.prompts,
        group_size=sampling.per_prompt,
        max_tokens=sampling.max_tokens,
        temperature=sampling.temperature,
        seed=sampling.seed,
    ).completions
    return judge_answers(completions, exam.judge, exam.find_defects)


def _choice_figures(path: Path, after_lm: LanguageModel, before_lm: LanguageModel | None) -> tuple[Figure, ...]:
    """How often, and how strongly, true answers are likelier than false ones."""
    questions = read_choices(path)
    after = score_choices(after_lm, questions)
    before = (None, None) if before_lm is None else score_choices(before_lm, questions)
    names = [asked.question for asked in questions]
    return tuple(
        compare_means(name, now_B, then_B, names, "share", "higher")
        for name, now_B, then_B in zip(("truth/mc1", "truth/mc2"), after, before, strict=True)
    )


def _heat_maps(after_lm: LanguageModel, before_lm: LanguageModel | None, shown: Judged) -> tuple[TokenRewards, ...]:
    """Answers with the lowest scores: there is most to see in them."""
    comparable = before_lm is not None and after_lm.tokenizer.get_vocab() == before_lm.tokenizer.get_vocab()
    scorer = shift(after_lm, before_lm) if comparable and before_lm is not None else typicality(after_lm)
    worst = [shown.completions[int(place)] for place in np.argsort(shown.scores_B, kind="stable")]
    return tuple(scorer(c.prompt, c.text) for c in worst[:HEAT_MAPS] if c.text.strip())


def _short_name(lm: LanguageModel) -> str:
    """The last two parts of a folder's path: enough to know a run's policy, or the whole hub id."""
    return "/".join(Path(lm.name).parts[-2:])


def _settings(exam: Exam, sampling: Sampling) -> dict[str, str]:
    return {
        "prompts": str(len(exam.prompts)),
        "answers to each": str(sampling.per_prompt),
        "judge": exam.judge.version,
        "max_tokens": str(sampling.max_tokens),
        "temperature": f"{sampling.temperature:g}",
        "seed": str(sampling.seed),
    }


def _cells(figure: Figure, words: Words, compared: bool) -> list[str]:
    cells = [words(figure.name)]
    if compared:
        cells.append(format_estimate(figure.before, figure.unit) if figure.before else "")
    cells.append(format_estimate(figure.after, figure.unit))
    if compared and figure.change:
        ends = (figure.change.value, figure.change.low, figure.change.high)
        value, low, high = (format_change(end, figure.unit) for end in ends)
        cells.append(f"{value} [{low}, {high}]")
    return [cell.replace(" [", " \\[") for cell in cells]
