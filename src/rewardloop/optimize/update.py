"""The one update that all methods share: from completions and a loss of their log-probs to new weights.

1  pack completions into micro-batches by token budget, those of one prompt together: they share it
2  add up the gradient of the loss over them (optimize/backward)
3  guards, clipping, one step of AdamW
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from rewardloop.errors import ConfigError, StoreError, TrainingError
from rewardloop.hardware import Precision, compute_dtype, computing_in
from rewardloop.models.language_model import LanguageModel
from rewardloop.models.packed import PackedBatch, head_logprobs, pack, packed_hidden, plan_passes
from rewardloop.optimize.backward import GradientPass, Loss

__all__ = ["Loss", "UpdateReport", "UpdateSettings", "Updater"]

BAD_STEPS_IN_A_ROW: Final = 3  # then something is wrong that skipping does not mend


@dataclass(frozen=True, slots=True)
class UpdateSettings:
    """How the weights move. Raises ConfigError for values that cannot work."""

    lr: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0  # 0 = no clipping
    warm_up: int = 0  # steps over which lr rises to its value: AdamW's first steps are all of full size
    tokens_per_microbatch: int = 768  # prompt and completion; memory grows with it, about 120 kB each at 15M
    precision: Precision = "auto"

    def __post_init__(self) -> None:
        if not (self.lr >= 0 and math.isfinite(self.lr)):
            raise ConfigError(f"lr: given {self.lr}; expected a number of 0 or more, such as 1e-4")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ConfigError(f"betas: given {self.betas}; expected two numbers of at least 0 and below 1")
        if not (self.weight_decay >= 0 and self.max_grad_norm >= 0):
            raise ConfigError(
                f"weight_decay {self.weight_decay}, max_grad_norm {self.max_grad_norm}: 0 or more expected"
            )
        if self.warm_up < 0:
            raise ConfigError(f"warm_up: given {self.warm_up}; expected a number of steps, 0 or more")
        if self.tokens_per_microbatch < 1:
            raise ConfigError(f"tokens_per_microbatch: given {self.tokens_per_microbatch}; expected 1 or more")
        compute_dtype(self.precision, "cpu")


@dataclass(frozen=True, slots=True)
class UpdateReport:
    """What one step did. Where it was skipped, the weights are as before, and `reason` says why."""

    loss: float
    grad_norm: float  # before clipping
    tokens: int  # prompt and completion
    skipped: bool
    reason: str
    metrics: dict[str, float]  # of the loss, summed over its parts


class Updater:
    """The optimizer of one model. Training is deterministic: the same calls give the same bits."""

    def __init__(self, lm: LanguageModel, settings: UpdateSettings) -> None:
        self.lm = lm
        self.settings = settings
        self.skipped_steps = 0
        self.pace = 1.0  # factor on lr, kept by whoever measures how far the steps go
        self._bad_in_a_row = 0
        self._steps = 0
        self._dtype = compute_dtype(settings.precision, lm.model.device)
        self._parameters = {n: p for n, p in lm.model.named_parameters() if p.requires_grad}
        self._optimizer = torch.optim.AdamW(
            self._parameters.values(),
            lr=settings.lr,
            betas=settings.betas,
            weight_decay=settings.weight_decay,
            fused=True,
        )

    @torch.no_grad()
    def logprobs(
        self,
        prompt_ids: Sequence[Sequence[int]],
        token_ids: Sequence[Sequence[int]],
        *,
        temperature: float = 1.0,
    ) -> Tensor:
        """Log-probs [B, T] under the weights as they are, computed as in `step`; right-padded with 0."""
        found: dict[int, Tensor] = {}
        model = self.lm.model
        for rows, batch in self._microbatches(prompt_ids, token_ids):
            with computing_in(self._dtype, model.device):
                hidden_ND = packed_hidden(model, batch)
            logprobs_N = head_logprobs(model, hidden_ND, batch, temperature=temperature, dtype=self._dtype)
            found.update(zip(rows, torch.split(logprobs_N, list(batch.completion_lengths)), strict=True))
        return pad_sequence([found[row] for row in range(len(found))], batch_first=True)

    def step(
        self,
        prompt_ids: Sequence[Sequence[int]],
        token_ids: Sequence[Sequence[int]],
        loss: Loss,
        *,
        temperature: float = 1.0,
        lr_share: float = 1.0,
    ) -> UpdateReport:
        """One step of the optimizer on the gradient of `loss`, which is called for parts of the batch.

        `lr_share`, in [0, 1], is how much of the learning rate is left at this point of a schedule.
        A step with a log-prob, loss or gradient that is not finite is skipped and counted; the third in a row
        raises TrainingError.
        """
        self._optimizer.zero_grad()
        gradient = GradientPass(self.lm, loss, self._dtype, temperature)
        with computing_in(self._dtype, self.lm.model.device):
            for rows, batch in self._microbatches(prompt_ids, token_ids):
                gradient.add(batch, rows)
                if gradient.reason:
                    break
        norm = math.nan if gradient.reason else self._clip()
        reason = gradient.reason or ("" if math.isfinite(norm) else f"the gradient's norm is {norm}")
        if not reason:
            self._steps += 1
            warmth = min(1.0, self._steps / (self.settings.warm_up or 1))
            self._optimizer.param_groups[0]["lr"] = self.settings.lr * self.pace * warmth * lr_share
            self._optimizer.step()
        self._optimizer.zero_grad()
        self._count(reason)
        return UpdateReport(
            loss=gradient.loss,
            grad_norm=norm,
            tokens=gradient.tokens,
            skipped=bool(reason),
            reason=reason,
            metrics=gradient.metrics,
        )

    def state_tensors(self) -> dict[str, Tensor]:
        """Optimizer and counters, ready for safetensors; with the model's weights, all that resuming needs."""
        state = {"counters": torch.tensor([self.skipped_steps, self._bad_in_a_row, self._steps])}
        for name, parameter in self._parameters.items():
            for key, value in self._optimizer.state[parameter].items():
                state[f"{key}.{name}"] = value.detach().clone()
        return state

    def load_state_tensors(self, state: Mapping[str, Tensor]) -> None:
        """Go on where `state_tensors` was taken, bit for bit. Raises StoreError if it is of another model."""
        moments: dict[str, dict[str, Tensor]] = {name: {} for name in self._parameters}
        for full_name, value in state.items():
            key, _, name = full_name.partition(".")
            if full_name == "counters":
                self.skipped_steps, self._bad_in_a_row, self._steps = (int(count) for count in value)
            elif name not in moments or value.shape not in ((), self._parameters[name].shape):
                raise StoreError(f"the optimizer's state {full_name} {tuple(value.shape)} fits no weight here")
            else:
                moments[name][key] = value.clone()
        self._optimizer.state.clear()
        for name, parameter in self._parameters.items():
            if moments[name]:
                # the count of steps, too: the fused kernel wants it beside the weight
                self._optimizer.state[parameter] = {
                    key: value.to(parameter.device) for key, value in moments[name].items()
                }

    # ---------------------------------------------------------------- parts of a step

    def _microbatches(
        self, prompt_ids: Sequence[Sequence[int]], token_ids: Sequence[Sequence[int]]
    ) -> Iterator[tuple[list[int], PackedBatch]]:
        """Rows and their packed batch, those of one prompt together."""
        for rows in plan_passes(prompt_ids, token_ids, self.settings.tokens_per_microbatch):
            prompts, completions = [prompt_ids[i] for i in rows], [token_ids[i] for i in rows]
            yield rows, pack(prompts, completions, self.lm.model.device)

    def _clip(self) -> float:
        """Norm of the whole gradient, which is no longer than max_grad_norm afterwards."""
        most = self.settings.max_grad_norm or math.inf
        return float(torch.nn.utils.clip_grad_norm_(self._parameters.values(), most))

    def _count(self, reason: str) -> None:
        """Keep count of the steps that were skipped for a reason; too many in a row end the training."""
        self._bad_in_a_row = self._bad_in_a_row + 1 if reason else 0
        self.skipped_steps += bool(reason)
        if self._bad_in_a_row >= BAD_STEPS_IN_A_ROW:
            raise TrainingError(
                f"{self._bad_in_a_row} steps in a row were not usable, the last because {reason}; lower lr or "
                "max_grad_norm, look at the rewards, or go on from an earlier checkpoint"
            )
