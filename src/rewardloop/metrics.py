"""Every figure a run writes down: its name, formula, unit and healthy range, in one table; and metrics.jsonl.

Names are flat, `area/name`. Steps, samples, tokens and seconds are counted apart. docs/metrics.md is made from
this table, and a test holds every metric of a run against it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rewardloop.errors import StoreError, TrainingError


@dataclass(frozen=True, slots=True)
class Metric:
    """What a figure means: `formula` in plain text, `healthy` a range or a tendency in words."""

    formula: str
    healthy: str


METRICS: Mapping[str, Metric] = {
    "loop/iteration": Metric("policy iterations so far", "rises by 1"),
    "loop/events": Metric("feedback events so far", "rises"),
    "loop/samples": Metric("completions sampled for training so far", "rises"),
    "loop/tokens": Metric("completion tokens sampled for training so far", "rises"),
    "loop/seconds": Metric("wall time since the run (re)started, s", "rises"),
    "reward/score": Metric("mean R(x, y), in standard deviations of the reference", "rises, then flat"),
    "reward/score_sd": Metric("standard deviation of R over the batch", "0.3 to 1.5"),
    "reward/disagreement": Metric("mean standard deviation between heads of the ensemble", "below 3x its start"),
    "reward/pair_accuracy": Metric("share of held-out judgments that the reward orders as people did", "above 0.6"),
    "reward/truncated": Metric("share of completions without an end token", "below 0.1"),
    "potential/explained_variance": Metric("1 - Var(Y - phi) / Var(Y), before fitting on the batch", "above 0.3"),
    "potential/gae_lambda": Metric("1 if EV < .3, .95 if EV < .8, else .9", "falls to .95 or .9"),
    "policy/kl": Metric("mean over sequences of sum_t log pi/pi_ref, nats per sequence", "below the target"),
    "policy/beta": Metric("weight of the KL term", "0.01 to 1"),
    "policy/loss": Metric("the policy loss of the last minibatch", "near 0; its sign says nothing"),
    "policy/grad_norm": Metric("norm of the gradient before clipping", "below 10"),
    "policy/approx_kl": Metric("mean k3 of pi against pi_prox, nats per token", "below 0.02"),
    "policy/clip_fraction": Metric("share of tokens whose ratio was clipped", "below 0.3"),
    "policy/ess": Metric("effective share of the batch under the sequence weights pi/mu", "above 0.5"),
    "policy/length": Metric("mean completion length, tokens", "no steady rise"),
    "policy/entropy": Metric("mean of -log pi of the sampled tokens, nats per token", "no fall to 0"),
    "policy/skipped_steps": Metric("optimizer steps skipped by a guard so far", "0"),
    "gold/reward": Metric("mean gold reward on held-out prompts", "rises"),
    "gold/reward_low": Metric("lower end of its 95 % interval", "rises"),
    "gold/reward_high": Metric("upper end of its 95 % interval", "rises"),
    "gold/win_rate": Metric("win rate against the reference on held-out prompts, ties one half", "above 0.5"),
    "gold/win_rate_low": Metric("lower end of its anytime-valid 95 % interval", "above 0.5"),
    "gold/win_rate_high": Metric("upper end of its anytime-valid 95 % interval", "above 0.5"),
    "gold/wrong_facts": Metric("share of held-out answers with a wrong fact", "falls"),
    "gold/topic_drift": Metric("share of held-out answers that leave the topic", "falls"),
    "gold/rudeness": Metric("share of held-out answers that are rude", "falls"),
    "text/repetition": Metric("share of repeated 3-grams within an answer", "no rise"),
    "text/length": Metric("mean length of held-out answers, characters", "no steady rise"),
}


class MetricsLog:
    """Appends one JSON object a line to `metrics.jsonl`; refuses names that the table does not know."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, values: Mapping[str, float]) -> None:
        """Append `values`. Raises StoreError when the disk is full, TrainingError for a figure that is not finite."""
        for name, value in values.items():
            assert name in METRICS, f"metric {name} is missing in rewardloop.metrics.METRICS"
            if not math.isfinite(value):
                raise TrainingError(f"{name} is {value}; the run stops before the checkpoint is touched")
        line = json.dumps({name: round(float(value), 6) for name, value in values.items()}) + "\n"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(line)
        except OSError as error:
            raise StoreError(f"could not append to {self.path}: {error.strerror}; free some space and resume") from error

    def truncate(self, lines: int) -> None:
        """Keep the first `lines` lines: what was written after the last checkpoint will be written again."""
        kept = list(self._lines())[:lines]
        if self.path.exists():
            self.path.write_text("".join(kept), encoding="utf-8")

    def read(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._lines()]

    def _lines(self) -> Iterator[str]:
        if self.path.exists():
            with self.path.open(encoding="utf-8") as file:
                yield from file
