"""`rewardloop train-reward`: a reward from files of feedback, measured on prompts it has not seen."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from rewardloop.errors import ConfigError
from rewardloop.feedback.prompts import PROMPTS, write_prompts
from rewardloop.feedback.reading import import_feedback
from rewardloop.feedback.splits import split_by_prompt
from rewardloop.files import write_text
from rewardloop.reward.classifier import make_classifier
from rewardloop.reward.features import make_extractor
from rewardloop.reward.fitting import fit_head
from rewardloop.reward.measuring import RewardFit, measure_reward
from rewardloop.reward.model import RewardModel
from rewardloop.reward.storage import save_reward
from rewardloop.reward.training import TrainingSettings, train_classifier
from rewardloop.sandbox.builtin import builtin_model_folder
from rewardloop.types import Feedback

CALIBRATION = 0.1  # share of the training prompts that only set the temperature
FEWEST_TO_SPLIT = 100  # with fewer judgments the calibration part would be noise


def train_reward(
    feedback: Sequence[Path],
    out: Path,
    *,
    backbone: str,
    layout: str | None,
    held_out: float,
    half: str | None,
    frozen: bool,
    epochs: int,
    lr: float | None,
    seed: int,
    console: Console,
) -> None:
    """Learn a reward, save it in `out` with its prompts and report.json, and print how good it is."""
    if half not in (None, "a", "b"):
        raise ConfigError(f"--half is {half!r}; expected a or b")
    if frozen and (epochs != 1 or lr is not None):
        raise ConfigError("--frozen fits the head to its optimum: --epochs and --lr have no meaning with it")
    settings = TrainingSettings(epochs=epochs, lr=lr)
    judgments = _read(feedback, layout, console)
    train, kept_back = split_by_prompt(judgments, held_out, seed)
    if half:
        train = split_by_prompt(train, 0.5, seed + 1)[half == "b"]
    fitting, calibration = split_by_prompt(train, CALIBRATION, seed) if len(train) >= FEWEST_TO_SPLIT else (train, [])
    source = str(builtin_model_folder()) if backbone == "builtin" else backbone
    console.print(
        f"{len(fitting)} judgments to learn from, {len(calibration)} to calibrate, {len(kept_back)} held out; "
        f"backbone {backbone}{' (frozen)' if frozen else ''}"
    )
    model = _fit(fitting, source, frozen, settings, seed, console)
    model, fit = measure_reward(model, fitting, calibration, kept_back, seed=seed)
    save_reward(model, out)
    write_prompts(out / PROMPTS, [judgment.prompt for judgment in train])
    write_text(out / "report.json", json.dumps(_report(fit, backbone, seed, half, frozen), indent=2) + "\n")
    _show(fit, console)
    console.print(f"reward {model.version} saved in {out}")


def _read(paths: Sequence[Path], layout: str | None, console: Console) -> list[Feedback]:
    judgments: list[Feedback] = []
    for path in paths:
        imported = import_feedback(path, layout)
        judgments += imported.feedback
        for file, name in imported.layouts.items():
            console.print(f"{file}: layout {name}")
        for reason, count in imported.skipped.items():
            console.print(f"left out: {count} {reason}", style="yellow")
    kinds = Counter(type(judgment).__name__.lower() for judgment in judgments)
    console.print("read " + ", ".join(f"{count} {kind}" for kind, count in kinds.most_common()))
    return judgments


def _fit(
    feedback: Sequence[Feedback],
    source: str,
    frozen: bool,
    settings: TrainingSettings,
    seed: int,
    console: Console,
) -> RewardModel:
    if frozen:
        with console.status("reading the texts once"):
            return fit_head(feedback, make_extractor(source), seed=seed)
    classifier = make_classifier(source, seed=seed)
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task("training", total=None)

        def progress(step: int, steps: int, loss: float) -> None:
            bar.update(task, completed=step, total=steps, description=f"training, loss {loss:.3f}")

        return train_classifier(feedback, classifier, settings=settings, seed=seed, progress=progress)


def _show(fit: RewardFit, console: Console) -> None:
    table = Table(title=f"{fit.pairs} held-out pairs")
    for column in ("judge", "pair accuracy", "95 % interval", "ECE", "ECE of a true judge"):
        table.add_column(column, justify="left" if column == "judge" else "right")
    for judge in fit.judges:
        accuracy = judge.accuracy
        table.add_row(
            judge.name,
            f"{accuracy.value:.3f}",
            f"{accuracy.low:.3f} to {accuracy.high:.3f}",
            *("" if value is None else f"{value:.3f}" for value in (judge.calibration_error, judge.calibration_floor)),
        )
    if fit.agreement is not None:
        table.add_row("two people", f"{fit.agreement:.3f}", f"{fit.meetings} meetings", "", "")
    console.print(table)
    foresight, *baselines = fit.judges[1:]
    if foresight.accuracy.value <= max(judge.accuracy.value for judge in baselines):
        console.print(
            "The model orders texts no better than a baseline that understands nothing: do not optimize against it. "
            "More judgments or a larger backbone may help.",
            style="yellow",
        )


def _report(fit: RewardFit, backbone: str, seed: int, half: str | None, frozen: bool) -> dict[str, object]:
    return {"backbone": backbone, "seed": seed, "half": half, "frozen": frozen, **asdict(fit)}
