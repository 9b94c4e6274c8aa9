"""Training a whole backbone into a reward model, on judgments of any kinds."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rewardloop.errors import ConfigError, TrainingError
from rewardloop.feedback.evidence import Evidence, gather_evidence, select_events
from rewardloop.hardware import Precision, compute_dtype, computing_in
from rewardloop.reward.classifier import Classifier
from rewardloop.reward.encoding import batches_by_length
from rewardloop.reward.fitting import fit_length, length_covariate, length_deviation
from rewardloop.reward.likelihood import build_channel, judgment_nll
from rewardloop.reward.model import RewardModel
from rewardloop.types import Feedback

CENTER = 0.01  # penalty on the square of the sum of the scores that are compared (2312.09244)
CHANNEL_LR = 0.02  # cutpoints, tie, bar and length: a handful of numbers in logits
SMALL, SMALL_LR, LEAST_LR = 3e6, 3e-4, 3e-6


@dataclass(frozen=True, slots=True)
class TrainingSettings:
    """How a backbone is trained."""

    epochs: int = 1  # a second pass over a few thousand judgments mostly remembers them
    events_per_step: int = 32
    lr: float | None = None  # None: by the size of the backbone, see default_lr
    weight_decay: float = 0.01
    warm_up: float = 0.1  # share of the steps
    max_grad_norm: float = 1.0
    tokens_at_once: int = 8192  # padded tokens of one forward and backward pass
    precision: Precision = "auto"  # of matrix products while training; scores are always float32

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.events_per_step < 1 or self.tokens_at_once < 1:
            raise ConfigError("epochs, events_per_step and tokens_at_once must be 1 or more")
        if self.lr is not None and not 0 < self.lr < 1:
            raise ConfigError(f"a learning rate of {self.lr}; expected above 0 and below 1, e.g. 1e-4")


Progress = Callable[[int, int, float], None]  # step, steps, loss


def default_lr(parameters: int) -> float:
    """3e-4 up to 3 million parameters, then as one over the square root of the size, 3e-6 at least."""
    return max(SMALL_LR * min(1.0, math.sqrt(SMALL / parameters)), LEAST_LR)


def train_classifier(
    feedback: Sequence[Feedback],
    classifier: Classifier,
    *,
    settings: TrainingSettings,
    seed: int,
    progress: Progress | None = None,
) -> RewardModel:
    """Train every weight of `classifier` on `feedback`; the reward has mean 0 and variance 1 over its texts.

    Loss of a step: mean of -log P of its events (a ranking is one event) + 0.01 (sum of compared scores)^2. The
    log-length of a text is a covariate in the likelihood and left out of the reward. Raises TrainingError after three
    steps in a row with a loss or gradient that is not finite; such steps are skipped.
    """
    evidence = gather_evidence(feedback)
    state = _Training(classifier, evidence, settings)
    plan = list(_plan(evidence, settings, seed))
    bad_steps = 0
    for step, events in enumerate(plan):
        loss = state.step(events, step, len(plan))
        bad_steps = 0 if math.isfinite(loss) else bad_steps + 1
        if bad_steps == 3:
            raise TrainingError("three steps in a row had a loss or gradient that is not finite; lower the lr")
        if progress:
            progress(step + 1, len(plan), loss)
    fitted = RewardModel(classifier, length_slope=state.length_slope)
    return fitted.standardize(fitted.score(*zip(*evidence.texts, strict=True)))


class _Training:
    """Classifier, channel and optimizer on their way."""

    def __init__(self, classifier: Classifier, evidence: Evidence, settings: TrainingSettings) -> None:
        self._classifier, self._evidence, self._settings = classifier, evidence, settings
        self._length_N = length_covariate([text for _, text in evidence.texts])
        slope, channel_C = fit_length(evidence, self._length_N)
        self._slope, self._channel_C = slope.requires_grad_(), channel_C.requires_grad_()
        self._texts = classifier.encode(*zip(*evidence.texts, strict=True))
        self._tokens_E = _event_tokens(evidence, [len(text["input_ids"]) for text in self._texts])
        self._dtype = compute_dtype(settings.precision, classifier.model.device)
        self._weights = list(classifier.model.parameters())
        lr = settings.lr or default_lr(classifier.size)
        groups = [
            {"params": self._weights, "lr": lr, "weight_decay": settings.weight_decay},
            {"params": [self._channel_C, self._slope], "lr": CHANNEL_LR, "weight_decay": 0.0},
        ]
        self._optimizer = torch.optim.AdamW(groups)
        self._peaks = [float(group["lr"]) for group in groups]  # type: ignore[arg-type]

    def step(self, events: np.ndarray, step: int, steps: int) -> float:
        """One optimizer step on `events`, in parts that fit the token budget: their gradients add up exactly."""
        total = 0.0
        for rows in batches_by_length(self._tokens_E[events].tolist(), self._settings.tokens_at_once):
            loss = self._loss(events[rows]) / len(events)
            loss.backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
        norm = torch.nn.utils.clip_grad_norm_(self._weights, self._settings.max_grad_norm)
        if math.isfinite(total) and bool(norm.isfinite()):
            for group, peak in zip(self._optimizer.param_groups, self._peaks, strict=True):
                group["lr"] = peak * _schedule(step, steps, self._settings.warm_up)
            self._optimizer.step()
        else:
            total = math.nan
        self._optimizer.zero_grad()
        return total

    @property
    def length_slope(self) -> float:
        """Logits for each unit of log-length."""
        return float(self._slope.detach()) / length_deviation([text for _, text in self._evidence.texts])

    def _loss(self, events: np.ndarray) -> Tensor:
        evidence, texts = select_events(self._evidence, events)
        with computing_in(self._dtype, self._classifier.model.device):
            rewards_N = self._classifier.logits([self._texts[text] for text in texts]).cpu().double()
        channel = build_channel(self._channel_C, evidence)
        nll = judgment_nll(rewards_N + self._slope * self._length_N[texts], evidence, channel)
        return nll + CENTER * _off_center(rewards_N, evidence)


def _event_tokens(evidence: Evidence, tokens_N: Sequence[int]) -> np.ndarray:
    """How many tokens have to be read for each event."""
    sizes = np.array([*tokens_N, 0])  # the last entry serves text -1
    total = np.zeros(evidence.events, dtype=np.int64)
    np.add.at(total, evidence.comparisons.event_E, sizes[evidence.comparisons.texts_E2].sum(-1))
    np.add.at(total, evidence.ordinals.event_E, sizes[evidence.ordinals.text_E])
    np.add.at(total, evidence.rankings.event_E, sizes[evidence.rankings.texts_EK].sum(-1))
    return total


def _off_center(rewards_N: Tensor, evidence: Evidence) -> Tensor:
    """(sum of the compared scores)^2: comparisons leave the level of the reward open."""
    pairs = rewards_N[torch.from_numpy(evidence.comparisons.texts_E2)].sum(-1).square().sum()
    exists = torch.from_numpy(evidence.rankings.texts_EK >= 0)
    ranked = rewards_N[torch.from_numpy(np.maximum(evidence.rankings.texts_EK, 0))].masked_fill(~exists, 0.0)
    return pairs + ranked.sum(-1).square().sum()


def _plan(evidence: Evidence, settings: TrainingSettings, seed: int) -> Iterator[np.ndarray]:
    """The events of each step, shuffled anew in each epoch; those about one text stay together.

    So a text that several people judged is read once, and not remembered from step to step.
    """
    first_text = np.full(evidence.events, len(evidence.texts))
    np.minimum.at(first_text, evidence.comparisons.event_E, evidence.comparisons.texts_E2.min(-1, initial=2**62))
    np.minimum.at(first_text, evidence.ordinals.event_E, evidence.ordinals.text_E)
    ranked = evidence.rankings.texts_EK
    np.minimum.at(first_text, evidence.rankings.event_E, np.where(ranked < 0, 2**62, ranked).min(-1, initial=2**62))
    telling = np.flatnonzero(first_text < len(evidence.texts))
    rng = np.random.default_rng(seed)
    for _ in range(settings.epochs):
        turn = rng.permutation(len(evidence.texts))
        order = telling[np.argsort(turn[first_text[telling]], kind="stable")]
        size = settings.events_per_step
        yield from (order[at : at + size] for at in range(0, len(order), size))


def _schedule(step: int, steps: int, warm_up: float) -> float:
    """Rises over the warm-up, then falls to 0 in a straight line."""
    rising = max(1, round(warm_up * steps))
    return min((step + 1) / rising, (steps - step) / max(1, steps - rising + 1), 1.0)
