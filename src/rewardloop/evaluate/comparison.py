"""One model, or one before against after: the figures with their intervals, on answers to the same prompts."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np

from rewardloop.errors import TrainingError
from rewardloop.evaluate.defects import estimate_share
from rewardloop.evaluate.report import Answer, Better, Example, Figure, Unit
from rewardloop.evaluate.texts import compression_ratio, distinct_n, rep_n
from rewardloop.evaluate.winrate import by_cluster, win_outcomes, win_rate_interval
from rewardloop.reward.calibration import Estimate, estimate_mean
from rewardloop.types import Completion, Prompt, RewardSource

# For each kind of defect, which completions have it; only a world whose truth is known can tell.
FindDefects = Callable[[Sequence[Completion]], Mapping[str, np.ndarray]]
Measure = Callable[[Sequence[Completion]], np.ndarray]  # one number for each completion, float [B]

# Unit of a measure's figure, and which way is better; for the rest the unit is a number, and neither is.
_MEASURES: Mapping[str, tuple[Unit, Better]] = {
    "text/unsupported": ("share", "lower"),
}


@dataclass(frozen=True, eq=False)
class Judged:
    """Completions and what the judge says of them."""

    completions: tuple[Completion, ...]  # B
    scores_B: np.ndarray
    defects: Mapping[str, np.ndarray] = field(default_factory=dict)  # name: bool array of B

    @property
    def prompts(self) -> list[Prompt]:
        return [completion.prompt for completion in self.completions]


def judge_answers(
    completions: Sequence[Completion], judge: RewardSource, find_defects: FindDefects | None = None
) -> Judged:
    """Score every completion. Raises TrainingError where a score is not finite."""
    scores_B = judge.score([c.prompt for c in completions], [c.text for c in completions])
    if not np.isfinite(scores_B).all():
        raise TrainingError(f"the judge {judge.version} gave a score that is not a number; nothing can be compared")
    return Judged(tuple(completions), scores_B, find_defects(completions) if find_defects else {})


def compare(
    after: Judged,
    before: Judged | None = None,
    *,
    kl_B: np.ndarray | None = None,
    measures: Mapping[str, Measure] = MappingProxyType({}),
) -> tuple[Figure, ...]:
    """Every measure with its 95 % interval over prompts, and its change where there is a `before`.

    `before` must hold as many answers to the same prompts in the same order. The interval of a change is that
    of the difference answer by answer: what is hard about a prompt cancels.

    Args:
        kl_B: log pi_after - log pi_before of each answer in `after`; its mean estimates KL(after || before).
        measures: further numbers of each answer, by the names of their figures.
    """
    assert before is None or before.prompts == after.prompts
    figures = [_mean("held_out/reward", after, before, lambda side: side.scores_B, "signed", "higher")]
    if before is not None:
        figures.append(_win_rate(after, before))
    figures += [_share(name, after, before) for name in after.defects]
    for name, measure in measures.items():
        figures.append(
            _mean(name, after, before, _of_completions(measure), *_MEASURES.get(name, ("number", "neither")))
        )
    if kl_B is not None:
        figures.append(Figure("policy/kl", estimate_mean(kl_B, after.prompts)))
    return (*figures, *_text_figures(after, before))


def pick_examples(after: Judged, before: Judged | None, count: int) -> tuple[Example, ...]:
    """Evenly spread over the prompts, not the best ones: what a visitor would have seen."""
    firsts = [place for place, prompt in enumerate(after.prompts) if prompt not in after.prompts[:place]]
    shown = min(count, len(firsts))
    return tuple(
        Example(
            prompt=after.completions[place].prompt,
            after=_answer(after, place),
            before=None if before is None else _answer(before, place),
        )
        for place in (firsts[number * len(firsts) // shown] for number in range(shown))
    )


def _answer(judged: Judged, place: int) -> Answer:
    defects = tuple(name for name, present_B in judged.defects.items() if present_B[place])
    return Answer(judged.completions[place].text, float(judged.scores_B[place]), defects)


def _mean(
    name: str,
    after: Judged,
    before: Judged | None,
    measure: Callable[[Judged], np.ndarray],
    unit: Unit,
    better: Better = "neither",
) -> Figure:
    return compare_means(name, measure(after), None if before is None else measure(before), after.prompts, unit, better)


def _of_completions(measure: Measure) -> Callable[[Judged], np.ndarray]:
    return lambda side: measure(side.completions)


def compare_means(
    name: str,
    now_B: np.ndarray,
    then_B: np.ndarray | None,
    clusters: Sequence[Hashable],
    unit: Unit,
    better: Better = "neither",
) -> Figure:
    """The mean now, before (`then_B`, in the same order), and of the difference one by one."""
    if then_B is None:
        return Figure(name, estimate_mean(now_B, clusters), unit=unit, better=better)
    return Figure(
        name,
        after=estimate_mean(now_B, clusters),
        before=estimate_mean(then_B, clusters),
        change=estimate_mean(now_B - then_B, clusters),
        unit=unit,
        better=better,
    )


def _win_rate(after: Judged, before: Judged) -> Figure:
    outcomes_N = by_cluster(win_outcomes(after.scores_B, before.scores_B), after.prompts)
    return Figure("held_out/win_rate", Estimate(*win_rate_interval(outcomes_N)), unit="share", better="higher")


def _share(name: str, after: Judged, before: Judged | None) -> Figure:
    now_B = after.defects[name].astype(float)
    then_B = None if before is None else before.defects[name].astype(float)
    return Figure(
        f"held_out/{name}",
        after=estimate_share(now_B, after.prompts),
        before=None if then_B is None else estimate_share(then_B, after.prompts),
        change=None if then_B is None else estimate_mean(now_B - then_B, after.prompts),
        unit="share",
        better="lower",
    )


def _text_figures(after: Judged, before: Judged | None) -> list[Figure]:
    def each(measure: Callable[[Completion], float]) -> Callable[[Judged], np.ndarray]:
        return lambda side: np.array([measure(completion) for completion in side.completions], dtype=float)

    def variety(side: Judged) -> Estimate:
        value = distinct_n([completion.text for completion in side.completions], 2)
        return Estimate(value, value, value)

    return [
        _mean("text/length", after, before, each(lambda c: len(c.text)), "count"),
        _mean("text/repetition", after, before, each(lambda c: rep_n(c.text, 3)), "share", "lower"),
        _mean("text/compression", after, before, each(lambda c: compression_ratio(c.text)), "number"),
        _mean("text/truncated", after, before, each(lambda c: c.finish_reason != "stop"), "share", "lower"),
        Figure("text/distinct", variety(after), None if before is None else variety(before), unit="share"),
    ]
