"""`rewardloop evaluate`: one model, or before against after, on held-out prompts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from rewardloop.errors import ConfigError
from rewardloop.evaluate.charts import format_change, format_estimate
from rewardloop.evaluate.comparison import FindDefects, Judged, compare, judge_answers, pick_examples
from rewardloop.evaluate.defects import find_defects
from rewardloop.evaluate.page import write_report
from rewardloop.evaluate.report import Figure, Language, RunReport, verdict
from rewardloop.evaluate.sentences import describe
from rewardloop.evaluate.token_rewards import TokenRewards
from rewardloop.evaluate.typicality import SHIFT, TYPICALITY, shift, typicality
from rewardloop.evaluate.words import Words, load_words
from rewardloop.feedback.prompts import read_prompts
from rewardloop.models.language_model import LanguageModel, load_language_model
from rewardloop.models.packed import forward_completions
from rewardloop.reward.storage import load_reward
from rewardloop.rollout.engine import Engine
from rewardloop.rollout.sampling import sample_rollout
from rewardloop.sandbox.dialogues import held_out_prompts
from rewardloop.sandbox.judges import GoldReward
from rewardloop.sandbox.world import build_world
from rewardloop.types import Completion, Prompt, RewardSource

EXAMPLES, HEAT_MAPS = 8, 6
NO_KL = "The two models have different tokenizers: there is no KL between them."


@dataclass(frozen=True, slots=True)
class Sampling:
    """How answers are drawn for the comparison."""

    per_prompt: int = 2
    max_tokens: int = 64
    temperature: float = 1.0  # above 0
    seed: int = 0


@dataclass(frozen=True)
class Exam:
    """What is asked, and who judges the answers."""

    prompts: tuple[Prompt, ...]
    judge: RewardSource
    find_defects: FindDefects | None = None


def evaluate(
    model: str | Path,
    before: str | Path | None,
    out: Path,
    console: Console,
    *,
    prompts: Path | None = None,
    reward: Path | None = None,
    most_prompts: int = 200,
    sampling: Sampling = Sampling(),
    world_seed: int = 0,
    language: Language = "en",
) -> RunReport:
    """Measure `model`, against `before` if it is given; write report.json and report.html into `out`.

    Without `prompts` the exam is the sandbox's: its held-out questions, its gold judge. With them, answers are
    judged by the reward model in `reward`. Raises ConfigError, DataError, ModelError, StoreError.
    """
    exam = _choose_exam(prompts, reward, most_prompts, world_seed, sampling.seed)
    after_lm = load_language_model(model)
    before_lm = None if before is None else load_language_model(before)
    after = _answers(after_lm, exam, sampling)
    earlier = None if before_lm is None else _answers(before_lm, exam, sampling)
    kl_B = None if before_lm is None else log_ratios(after_lm, before_lm, after.completions, sampling.temperature)
    report = RunReport(
        title=" → ".join(_short_name(lm) for lm in (before_lm, after_lm) if lm is not None),
        figures=compare(after, earlier, kl_B=kl_B),
        examples=pick_examples(after, earlier, EXAMPLES),
        token_rewards=_heat_maps(after_lm, before_lm, earlier or after),
        token_rewards_meaning=TYPICALITY if kl_B is None else SHIFT,
        warnings=(NO_KL,) if kl_B is None and before_lm is not None else (),
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


def _choose_exam(prompts: Path | None, reward: Path | None, most: int, world_seed: int, seed: int) -> Exam:
    if (prompts is None) != (reward is None):
        given, missing = ("prompts", "reward") if reward is None else ("reward", "prompts")
        raise ConfigError(
            f"--{given} without --{missing}: your own prompts need a reward model that judges the answers; "
            "give both, or neither for the sandbox"
        )
    if prompts is not None and reward is not None:
        return Exam(_some(read_prompts(prompts), most, seed), load_reward(reward))
    world = build_world(world_seed)
    return Exam(_some(held_out_prompts(world), most, seed), GoldReward(world), partial(find_defects, world))


def _some(prompts: Sequence[Prompt], most: int, seed: int) -> tuple[Prompt, ...]:
    """At most `most` of the prompts, drawn by `seed`, in their order."""
    if len(prompts) <= most:
        return tuple(prompts)
    chosen = np.random.default_rng(seed).choice(len(prompts), size=most, replace=False)
    return tuple(prompts[int(place)] for place in sorted(chosen))


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
