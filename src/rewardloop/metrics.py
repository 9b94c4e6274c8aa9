"""Every figure a run writes down: its name, formula, unit and healthy range, in one table.

Names are flat, `area/name`. Steps, samples, tokens and seconds are counted apart. docs/metrics.md is made from
this table, and a test holds every metric of a run against it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from rewardloop.errors import TrainingError


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
    "people/worst_weight": Metric(
        "least weight of anybody who judges, 0 guesses or opposes to 1 ordinary", "above 0.25"
    ),
    "people/weight_mean": Metric("mean weight of those who judge, where two or more do", "above 0.7"),
    "reward/truncated": Metric("share of completions without an end token", "below 0.1"),
    "potential/explained_variance": Metric("1 - Var(Y - phi) / Var(Y), before fitting on the batch", "above 0.3"),
    "potential/gae_lambda": Metric("1 if EV < .1, .9 if EV < .2, else .8", "falls to .9 or .8"),
    "policy/kl": Metric("mean over sequences of sum_t log pi/pi_ref, nats per sequence", "below the target"),
    "policy/beta": Metric("weight of the KL term", "0.01 to 1"),
    "policy/loss": Metric("the policy loss of the last minibatch", "near 0; its sign says nothing"),
    "policy/grad_norm": Metric("norm of the gradient before clipping", "below 10"),
    "policy/approx_kl": Metric("mean k3 of pi against pi_prox, nats per token", "below 0.02"),
    "policy/clip_fraction": Metric("share of tokens whose ratio was clipped", "below 0.3"),
    "policy/ess": Metric("effective share of the batch under the sequence weights pi/mu", "above 0.5"),
    "policy/step_kl": Metric(
        "KL of the policy before the iteration against after it, nats per sequence", "at most 1/36 of the target"
    ),
    "policy/pace": Metric("factor on the learning rate, after steps that went too far", "1; steady below it"),
    "policy/engine_log_ratio": Metric(
        "greatest |log pi - log mu| of a token under the same weights, update against engine",
        "below 0.0001 in float32, where more than 0.001 ends the run",
    ),
    "policy/version_lag": Metric("weight versions between sampling and learning", "0; over 2 drops the batch"),
    "policy/dropped_batches": Metric("batches dropped so far, too old or below half their effective size", "0"),
    "policy/length": Metric("mean completion length, tokens", "no steady rise"),
    "policy/entropy": Metric("mean of -log pi of the sampled tokens, nats per token", "no fall to 0"),
    "policy/skipped_steps": Metric("optimizer steps skipped by a guard so far", "0"),
    "held_out/reward": Metric("mean of the judge (gold or a second reward model) on held-out prompts", "rises"),
    "held_out/gain": Metric("held_out/reward minus the reference's on the same prompts", "above 0"),
    "held_out/gain_low": Metric("lower end of its 95 % interval over prompts", "above 0"),
    "held_out/gain_high": Metric("upper end of its 95 % interval over prompts", "above 0"),
    "held_out/proxy": Metric(
        "mean of the reward trained on, on held-out prompts, reference sd", "rises with the judge"
    ),
    "held_out/win_rate": Metric("win rate against the reference by the judge, ties one half", "above 0.5"),
    "held_out/win_rate_low": Metric("lower end of its anytime-valid 95 % interval", "above 0.5"),
    "held_out/win_rate_high": Metric("upper end of its anytime-valid 95 % interval", "above 0.5"),
    "held_out/wrong_facts": Metric("share of held-out answers with a wrong fact", "falls"),
    "held_out/topic_drift": Metric("share of held-out answers that leave the topic", "falls"),
    "held_out/rudeness": Metric("share of held-out answers that are rude", "falls"),
    "reward/new_nll": Metric(
        "mean -log P of new judgments' order, before they were learned from", "below new_nll_before"
    ),
    "reward/new_nll_before": Metric("the same by the reward in force until then", "about 0.5"),
    "reward/old_nll": Metric("mean -log P of old judgments' order, after a refit", "at most 1 % over old_nll_before"),
    "reward/old_nll_before": Metric("the same by the reward in force until then", "about 0.5"),
    "live/joined": Metric("served answers with fresh judgments among the samples of a round", "rises with use"),
    "live/unusable": Metric("judgments so far that did not fit their answers", "0"),
    "live/too_long": Metric("prompts so far that leave no room for an answer", "0"),
    "gate/win_rate": Metric(
        "win rate of a candidate against the active version by the judge, ties one half", "above 0.5"
    ),
    "gate/win_rate_low": Metric("lower end of its anytime-valid 95 % interval", "above 0.5 lets it in"),
    "gate/win_rate_high": Metric("upper end of its anytime-valid 95 % interval", "below 0.5 sends it back"),
    "gate/evidence": Metric("greatest e-process against a win rate of 1/2 or less", "20 or more lets it in"),
    "gate/comparisons": Metric("canary answers compared", "64 to 320"),
    "gate/length": Metric("mean answer length as a share of the untouched model's", "0.5 to 1.75"),
    "gate/repetition": Metric("share of repeated 3-grams minus the untouched model's", "at most 0.1"),
    "gate/disagreement": Metric("disagreement of the ensemble as a multiple of that at the untouched model", "below 3"),
    "text/repetition": Metric("share of repeated 3-grams within an answer", "no rise"),
    "text/length": Metric("mean length of held-out answers, characters", "no steady rise"),
}


def check_metrics(values: Mapping[str, float]) -> dict[str, float]:
    """`values`, rounded for writing. Raises TrainingError for a figure that is not finite."""
    for name, value in values.items():
        assert name in METRICS, f"metric {name} is missing in rewardloop.metrics.METRICS"
        if not math.isfinite(value):
            raise TrainingError(f"{name} is {value}; the run stops, its last generation is untouched")
    return {name: round(float(value), 6) for name, value in values.items()}
