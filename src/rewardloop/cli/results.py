"""What a run leaves for people: the report, and a few lines on the screen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console

from rewardloop.config import recipe_values
from rewardloop.evaluate.comparison import compare, pick_examples
from rewardloop.evaluate.page import write_report
from rewardloop.evaluate.report import Language, RunReport, charts_of_run, verdict
from rewardloop.evaluate.sentences import say
from rewardloop.evaluate.token_rewards import TokenRewards
from rewardloop.evaluate.words import load_words
from rewardloop.loop.learner import Learner
from rewardloop.loop.recipe import Recipe
from rewardloop.loop.run import Outcome
from rewardloop.types import Completion, RewardSource, Rollout

EXAMPLES, HEAT_MAPS = 8, 6
BEFORE_LEARNING = "before_learning"  # what the colors of the tokens mean, in words.yaml
VERDICTS = {
    "improved": "[bold green]improved[/]",
    "worse": "[bold red]got worse[/]",
    "unproven": "did not provably change",
    "single": "was measured",
}


def write_results(
    outcome: Outcome,
    source: RewardSource | None,
    recipe: Recipe,
    folder: Path,
    console: Console,
    title: str,
    language: Language = "en",
) -> None:
    """Write report.html and report.json into `folder`, in `language`, and say on the screen what came out."""
    seen, progress = outcome.measurement, outcome.journal.progress
    figures = compare(seen.after, seen.before)
    worst = np.argsort(seen.before.scores_B, kind="stable")[:HEAT_MAPS]
    shown = [seen.before.completions[int(place)] for place in worst]
    report = RunReport(
        title=title,
        figures=figures,
        charts=charts_of_run(progress.points, answers=len(seen.after.completions)),
        examples=pick_examples(seen.after, seen.before, EXAMPLES),
        token_rewards=reward_tokens(outcome.learner, shown, source) if source else (),
        token_rewards_meaning=BEFORE_LEARNING,
        warnings=(progress.stopped_because,) if progress.stopped_because else (),
        settings={name: str(value) for name, value in _flat(recipe_values(recipe)).items()},
    )
    page = write_report(report, folder, language=language)
    stopped = f" ({say(progress.stopped_because, load_words('en'))})" if progress.stopped_because else ""
    gain = figures[0].change
    assert gain is not None
    console.print(
        f"\nThe model {VERDICTS[verdict(report)]}: {gain.value:+.3f} \\[{gain.low:+.3f}, {gain.high:+.3f}] on "
        f"{len(seen.after.completions)} held-out prompts, after {len(outcome.journal.feedback)} judgments and "
        f"{progress.iteration} iterations{stopped}.",
        highlight=False,
    )
    console.print(f"Policy: {folder / 'policy'}\nReport: {page}", highlight=False, soft_wrap=True)


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


def _flat(values: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return flat
