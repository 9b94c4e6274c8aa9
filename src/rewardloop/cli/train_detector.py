"""`rewardloop train-detector`: a detector of one defect from judged texts, for `rewardloop evaluate`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from rewardloop.errors import ConfigError
from rewardloop.evaluate.charts import format_estimate
from rewardloop.evaluate.detector import fit_detector, save_detector, validity_json
from rewardloop.feedback.reading import read_feedback
from rewardloop.feedback.splits import split_by_prompt
from rewardloop.files import write_text
from rewardloop.types import Feedback

HELD_OUT = 0.2  # of the prompts; what train-reward holds out unless told otherwise
USEFUL_AUC = 0.8  # below, the order of texts says too little to decide anything by


def train_detector(
    feedback: Sequence[Path],
    out: Path,
    *,
    name: str,
    layout: str | None,
    half: str | None,
    seed: int,
    console: Console,
) -> None:
    """Learn the detector, save it at `out` with its validity beside it, and print how good it is.

    Raises ConfigError, DataError, StoreError.
    """
    if half not in (None, "a", "b"):
        raise ConfigError(f"--half is {half!r}; expected a or b")
    if not re.fullmatch(r"[a-z][a-z_]*", name):
        raise ConfigError(f"--name is {name!r}; expected small letters, such as harm")
    judgments = [judgment for path in feedback for judgment in read_feedback(path, layout)]
    train, held_out = split_judgments(judgments, half, seed)
    detector, validity = fit_detector(name, train, held_out, seed)
    save_detector(detector, out)
    write_text(out.with_suffix(".json"), validity_json(validity))
    console.print(
        f"{name} on {validity.texts} held-out texts: finds {format_estimate(validity.found, 'share')} of the "
        f"defective, flags {format_estimate(validity.false_alarms, 'share')} of the others (AUC {validity.auc:.2f})",
        highlight=False,
        markup=False,
    )
    if validity.auc < USEFUL_AUC:
        console.print("It tells the texts apart too badly to decide anything by; give more examples.", style="yellow")
    console.print(f"detector saved in {out}", highlight=False, soft_wrap=True)


def split_judgments(
    judgments: Sequence[Feedback], half: str | None, seed: int
) -> tuple[list[Feedback], list[Feedback]]:
    """(train, held out), the first cut to a half as `train-reward` cuts it.

    From the same files with the same seed, a reward of half a and a detector of half b share no prompt.
    """
    train, held_out = split_by_prompt(judgments, HELD_OUT, seed)
    return (split_by_prompt(train, 0.5, seed + 1)[half == "b"] if half else train), held_out
