"""The folder of a run. A generation holds everything that learning has changed and is replaced whole, so that a run
killed anywhere goes on from the last one and ends in the same bits.

    run/
      recipe.yaml         the resolved recipe
      metrics.jsonl       one line per iteration
      samples.jsonl       some completions at each measurement
      generation/         replaced whole, never changed in place
        state.safetensors policy, optimizer, potential
        progress.json     counters, measurements, digest of the recipe, threads
        feedback.jsonl    every judgment so far
      policy/             the result: a plain Hugging Face folder
      potential/          the learned potential, for `rewardloop score`
      report.html, report.json
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from rewardloop.config import recipe_digest, recipe_yaml
from rewardloop.errors import ConfigError, StoreError
from rewardloop.feedback.records import from_record, write_feedback
from rewardloop.files import append_line, truncate_lines, write_text, written_whole
from rewardloop.loop.recipe import Recipe
from rewardloop.metrics import check_metrics
from rewardloop.types import Completion, Feedback

SAMPLES_SHOWN = 8


@dataclass
class Progress:
    """The plain part of a generation."""

    recipe_digest: str
    threads: int
    iteration: int = 0
    samples: int = 0
    tokens: int = 0
    metric_lines: int = 0
    sample_lines: int = 0
    stopped_because: dict[str, str] | None = None  # a Reason of evaluate.convergence
    points: list[dict[str, float]] = field(default_factory=list)  # the measurements


class Journal:
    """Writes and reads the folder of a run."""

    def __init__(self, folder: Path, recipe: Recipe) -> None:
        self.folder = folder
        self.progress = Progress(recipe_digest(recipe), torch.get_num_threads())
        self.feedback: list[Feedback] = []
        self._recipe_yaml = recipe_yaml(recipe)

    def resume(self) -> dict[str, Tensor] | None:
        """The state of the last generation, after which everything written is dropped; None for a new run.

        Raises ConfigError when the run was begun with another recipe or number of threads (the same bits would not
        come out), StoreError when the generation is damaged.
        """
        generation, tensors = self.folder / "generation", None
        if generation.is_dir():
            stored, tensors, feedback = _read(generation)
            self._require_same(stored)
            self.progress, self.feedback = stored, feedback
        truncate_lines(self.folder / "metrics.jsonl", self.progress.metric_lines)
        truncate_lines(self.folder / "samples.jsonl", self.progress.sample_lines)
        write_text(self.folder / "recipe.yaml", self._recipe_yaml)
        return tensors

    def save(self, tensors: Mapping[str, Tensor]) -> None:
        """Write the generation, whole or not at all."""
        with written_whole(self.folder / "generation") as folder:
            folder.mkdir(parents=True)
            save_file(
                {name: value.detach().cpu().clone() for name, value in tensors.items()}, folder / "state.safetensors"
            )
            write_feedback(folder / "feedback.jsonl", self.feedback)
            plain = json.dumps(dataclasses.asdict(self.progress), ensure_ascii=False)
            (folder / "progress.json").write_text(plain, encoding="utf-8")

    def write_metrics(self, metrics: Mapping[str, float]) -> None:
        """One more line of metrics.jsonl. Raises TrainingError for a figure that is not finite."""
        append_line(self.folder / "metrics.jsonl", json.dumps(check_metrics(metrics)))
        self.progress.metric_lines += 1

    def write_samples(self, completions: tuple[Completion, ...], judged: list[float]) -> None:
        """Some completions of this measurement, to be read by people."""
        for completion, value in list(zip(completions, judged, strict=True))[:SAMPLES_SHOWN]:
            prompt = (
                completion.prompt
                if isinstance(completion.prompt, str)
                else [dataclasses.asdict(m) for m in completion.prompt]
            )
            record = {
                "iteration": self.progress.iteration,
                "prompt": prompt,
                "completion": completion.text,
                "judged": value,
            }
            append_line(self.folder / "samples.jsonl", json.dumps(record, ensure_ascii=False))
            self.progress.sample_lines += 1

    def _require_same(self, stored: Progress) -> None:
        if stored.recipe_digest != self.progress.recipe_digest:
            raise ConfigError(
                f"{self.folder} was begun with another recipe (see {self.folder / 'recipe.yaml'}); give the same "
                "settings to go on, or another --out to start afresh"
            )
        if stored.threads != self.progress.threads:
            raise ConfigError(
                f"{self.folder} was begun with {stored.threads} threads, now {self.progress.threads}: the bits would "
                "differ; go on with as many threads as before, or start afresh with another --out"
            )


def above(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors with `prefix` before their names."""
    return {prefix + name: value for name, value in tensors.items()}


def below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with `prefix`, without it."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _read(generation: Path) -> tuple[Progress, dict[str, Tensor], list[Feedback]]:
    try:
        progress = Progress(**json.loads((generation / "progress.json").read_text(encoding="utf-8")))
        # Read record by record: what an importer leaves out (a correction that changes nothing) was an event here.
        lines = (generation / "feedback.jsonl").read_text(encoding="utf-8").splitlines()
        feedback = [from_record(json.loads(line)) for line in lines]
        return progress, load_file(generation / "state.safetensors"), feedback
    except (OSError, ValueError, TypeError, SafetensorError) as error:
        raise StoreError(
            f"{generation} is damaged ({error}); start afresh with another --out, or delete the folder"
        ) from error
