"""What a run leaves for people: the report, and a few lines on the screen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console

from rewardloop.config import recipe_values
from rewardloop.evaluate.report import (
    Answer,
    Example,
    Figure,
    RunReport,
    charts_of_run,
    verdict,
    write_report,
)
from rewardloop.evaluate.token_rewards import TokenRewards
from rewardloop.evaluate.winrate import win_outcomes, win_rate_interval
from rewardloop.loop.learner import Learner
from rewardloop.loop.measure import Measurement
from rewardloop.loop.recipe import Recipe
from rewardloop.loop.run import Outcome
from rewardloop.reward.calibration import Estimate, estimate_mean
from rewardloop.types import Completion, RewardSource, Rollout

EXAMPLES, HEAT_MAPS = 8, 6

# The names of the defects of a completion; empty where nobody knows the truth.
DefectNames = Callable[[Completion], tuple[str, ...]]


def write_results(
    outcome: Outcome,
    source: RewardSource | None,
    recipe: Recipe,
    folder: Path,
    console: Console,
    *,
    title: str,
    defects: DefectNames = lambda _: (),
) -> None:
    """Write report.html and report.json into `folder` and say on the screen what came out."""
    seen, progress = outcome.measurement, outcome.journal.progress
    report = RunReport(
        title=title,
        figures=figures(seen, defects),
        charts=charts_of_run(progress.points, answers=len(seen.completions)),
        examples=examples(seen, defects),
        token_rewards=token_rewards(outcome.learner, seen, source) if source else (),
        token_rewards_meaning="immediate reward of each token: how much better (blue) or worse (orange) the answer "
        "is expected to become with it",
        warnings=(progress.stopped_because,) if progress.stopped_because else (),
        settings={name: str(value) for name, value in _flat(recipe_values(recipe)).items()},
    )
    page = write_report(report, folder)
    gain = report.figures[0].change
    assert gain is not None
    words = {
        "improved": "[bold green]improved[/]",
        "worse": "[bold red]got worse[/]",
        "unproven": "did not provably change",
    }
    console.print(
        f"\nThe model {words[verdict(report)]}: {gain.value:+.3f} \\[{gain.low:+.3f}, {gain.high:+.3f}] on "
        f"{len(seen.completions)} held-out prompts, after {len(outcome.journal.feedback)} judgments and "
        f"{progress.iteration} iterations{f' ({progress.stopped_because})' if progress.stopped_because else ''}.",
        highlight=False,
    )
    console.print(f"Policy: {folder / 'policy'}\nReport: {page}", highlight=False, soft_wrap=True)


def figures(seen: Measurement, defects: DefectNames) -> tuple[Figure, ...]:
    """The judge's reward, the win rate and the share of each defect, before and after, with intervals."""
    prompts = [c.prompt for c in seen.completions]
    found = [
        Figure(
            "held_out/reward",
            after=estimate_mean(seen.judged_B, prompts),
            before=estimate_mean(seen.reference_judged_B, prompts),
            change=estimate_mean(seen.judged_B - seen.reference_judged_B, prompts),
            unit="signed",
            better="higher",
        ),
        Figure(
            "held_out/win_rate",
            after=Estimate(*win_rate_interval(win_outcomes(seen.judged_B, seen.reference_judged_B))),
            unit="share",
            better="higher",
        ),
    ]
    for name in ("wrong_facts", "topic_drift", "rudeness"):
        after_B, before_B = (
            np.array([name in defects(c) for c in cs], dtype=float) for cs in (seen.completions, seen.reference)
        )
        if after_B.any() or before_B.any():
            found.append(
                Figure(
                    f"held_out/{name}",
                    after=estimate_mean(after_B, prompts),
                    before=estimate_mean(before_B, prompts),
                    change=estimate_mean(after_B - before_B, prompts),
                    unit="share",
                    better="lower",
                )
            )
    return tuple(found)


def examples(seen: Measurement, defects: DefectNames) -> tuple[Example, ...]:
    """Every so many-th held-out prompt, not the best ones: what a visitor would have seen."""
    stride = max(1, len(seen.completions) // EXAMPLES)
    chosen = range(0, len(seen.completions), stride)
    return tuple(
        Example(
            prompt=seen.completions[i].prompt,
            after=Answer(seen.completions[i].text, float(seen.judged_B[i]), defects(seen.completions[i])),
            before=Answer(seen.reference[i].text, float(seen.reference_judged_B[i]), defects(seen.reference[i])),
        )
        for i in list(chosen)[:EXAMPLES]
    )


def token_rewards(learner: Learner, seen: Measurement, source: RewardSource) -> tuple[TokenRewards, ...]:
    """Immediate rewards of answers before learning, worst first: there is more to see in them."""
    worst = np.argsort(seen.reference_judged_B, kind="stable")[:HEAT_MAPS]
    completions = [seen.reference[int(i)] for i in worst]
    return reward_tokens(learner, completions, source)


def reward_tokens(
    learner: Learner, completions: Sequence[Completion], source: RewardSource
) -> tuple[TokenRewards, ...]:
    """The learner's immediate rewards of `completions`, token by token."""
    rollout = Rollout(tuple(completions), tuple(range(len(completions))))
    rewards_BT = learner.score(rollout, source).scored.rewards_BT
    return tuple(
        TokenRewards(
            prompt=c.prompt,
            completion=c.text,
            offsets=tuple(learner.reference.token_offsets(c.token_ids)),
            rewards=tuple(row[: len(c.token_ids)].tolist()),
        )
        for c, row in zip(completions, rewards_BT, strict=True)
    )


def _flat(values: dict[str, object], prefix: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat
