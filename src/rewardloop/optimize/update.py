"""The one update that all methods share: from completions and a loss of their log-probs to new weights.

    1  pack completions into micro-batches by token budget, longest first
    2  one forward pass of the trunk, in bfloat16 where the processor has it, over float32 weights
    3  through the head, some completions at a time: log-probs, the loss's gradient, the head's gradients
    4  one backward pass of the trunk
    5  guards, clipping, one step of AdamW

Step 3 is why a loss must add up over completions (functional/losses): its gradient with respect to the
log-probs of a few completions is known as soon as they are, while their logits are still at hand.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import torch
from torch import Tensor

from rewardloop.errors import ConfigError, StoreError, TrainingError
from rewardloop.functional.head import backward_through_head, default_chunk
from rewardloop.functional.losses import LossOutput
from rewardloop.hardware import Precision, compute_dtype, computing_in
from rewardloop.models.language_model import LanguageModel
from rewardloop.models.packed import (
    PackedBatch,
    completion_rows,
    completion_targets,
    head_logprobs,
    output_head,
    pack,
    packed_hidden,
    plan_passes,
    split_rows,
)

# A loss of the log-probs [b, t] of some completions, whose rows in the caller's order are the second argument.
# It must add up: the losses of any partition of the rows sum to the loss of the batch.
Loss = Callable[[Tensor, Tensor], LossOutput]

BAD_STEPS_IN_A_ROW: Final = 3  # then something is wrong that skipping does not mend


@dataclass(frozen=True, slots=True)
class UpdateSettings:
    """How the weights move. Raises ConfigError for values that cannot work."""

    lr: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0  # 0 = no clipping
    tokens_per_microbatch: int = 1024  # prompt and completion; memory grows with it
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
        self._bad_in_a_row = 0
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
        rows: dict[int, Tensor] = {}
        for chosen, batch in self._microbatches(prompt_ids, token_ids):
            logprobs_N = head_logprobs(
                self.lm.model, self._hidden(batch), batch, temperature=temperature, dtype=self._dtype
            )
            rows.update(zip(chosen, torch.split(logprobs_N, list(batch.completion_lengths)), strict=True))
        return torch.nn.utils.rnn.pad_sequence([rows[i] for i in range(len(rows))], batch_first=True)

    def step(
        self,
        prompt_ids: Sequence[Sequence[int]],
        token_ids: Sequence[Sequence[int]],
        loss: Loss,
        *,
        temperature: float = 1.0,
    ) -> UpdateReport:
        """One step of the optimizer on the gradient of `loss`, which is called for parts of the batch.

        A step with a log-prob, loss or gradient that is not finite is skipped and counted; the third in a row
        raises TrainingError.
        """
        self._optimizer.zero_grad()
        total = _Total()
        for chosen, batch in self._microbatches(prompt_ids, token_ids):
            if not total.reason:
                self._backward(batch, chosen, loss, temperature, total)
        norm = math.nan if total.reason else self._clip()
        if not total.reason and not math.isfinite(norm):
            total.reason = f"the gradient has norm {norm}"
        if total.reason:
            self._skip(total.reason)
        else:
            self._optimizer.step()
            self._bad_in_a_row = 0
        self._optimizer.zero_grad()
        return UpdateReport(
            loss=total.loss,
            grad_norm=norm,
            tokens=total.tokens,
            skipped=bool(total.reason),
            reason=total.reason,
            metrics=total.metrics,
        )

    def state_tensors(self) -> dict[str, Tensor]:
        """Optimizer and counters, ready for safetensors; with the model's weights, all that resuming needs."""
        state = {"counters": torch.tensor([self.skipped_steps, self._bad_in_a_row])}
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
                self.skipped_steps, self._bad_in_a_row = (int(count) for count in value)
            elif name not in moments or value.shape not in ((), self._parameters[name].shape):
                raise StoreError(f"the optimizer's state {full_name} {tuple(value.shape)} fits no weight here")
            else:
                moments[name][key] = value.clone()
        self._optimizer.state.clear()
        for name, parameter in self._parameters.items():
            if moments[name]:
                self._optimizer.state[parameter] = {
                    key: value if key == "step" else value.to(parameter.device) for key, value in moments[name].items()
                }

    # ---------------------------------------------------------------- parts of a step

    def _microbatches(
        self, prompt_ids: Sequence[Sequence[int]], token_ids: Sequence[Sequence[int]]
    ) -> Iterator[tuple[list[int], PackedBatch]]:
        """Rows and their packed batch, longest first."""
        lengths = [len(prompt) + len(ids) for prompt, ids in zip(prompt_ids, token_ids, strict=True)]
        for chosen in plan_passes(lengths, self.settings.tokens_per_microbatch):
            prompts, completions = [prompt_ids[i] for i in chosen], [token_ids[i] for i in chosen]
            yield chosen, pack(prompts, completions, self.lm.model.device)

    def _hidden(self, batch: PackedBatch) -> Tensor:
        with computing_in(self._dtype, self.lm.model.device):
            return packed_hidden(self.lm.model, batch)

    def _backward(
        self, batch: PackedBatch, chosen: Sequence[int], loss: Loss, temperature: float, total: _Total
    ) -> None:
        """Add the gradient of one micro-batch to the weights' gradients."""
        hidden_ND = self._hidden(batch)
        rows_N, targets_N = completion_rows(batch), completion_targets(batch)
        weight_VD, bias_V = output_head(self.lm.model)
        states_ND = hidden_ND[rows_N]
        computed_ND, computed_VD = states_ND.detach().to(self._dtype), weight_VD.detach().to(self._dtype)
        grads = []
        for part, places in _head_parts(batch.completion_lengths, default_chunk(computed_VD)):
            lengths = batch.completion_lengths[part]
            rows_B = torch.tensor(chosen[part], device=rows_N.device)
            grads.append(
                backward_through_head(
                    computed_ND[places],
                    computed_VD,
                    targets_N[places],
                    partial(total.add, loss, rows_B, lengths),
                    _gradient(weight_VD),
                    bias_V=None if bias_V is None else bias_V.detach(),
                    bias_grad_V=None if bias_V is None else _gradient(bias_V),
                    temperature=temperature,
                )
            )
        states_ND.backward(torch.cat(grads).to(states_ND.dtype))  # type: ignore[no-untyped-call]
        total.tokens += sum(batch.lengths)

    def _clip(self) -> float:
        """Norm of the whole gradient, which is no longer than max_grad_norm afterwards."""
        most = self.settings.max_grad_norm or math.inf
        return float(torch.nn.utils.clip_grad_norm_(self._parameters.values(), most))

    def _skip(self, reason: str) -> None:
        self.skipped_steps += 1
        self._bad_in_a_row += 1
        if self._bad_in_a_row == BAD_STEPS_IN_A_ROW:
            raise TrainingError(
                f"{BAD_STEPS_IN_A_ROW} steps in a row were not usable, the last because {reason}; lower lr or "
                "max_grad_norm, look at the rewards, or go on from an earlier checkpoint"
            )


@dataclass(slots=True)
class _Total:
    """What the parts of a step add up to; `reason` is why it must be skipped, empty while it need not."""

    loss: float = 0.0
    tokens: int = 0
    reason: str = ""
    metrics: dict[str, float] = field(default_factory=dict)

    def add(self, loss: Loss, rows_B: Tensor, lengths: Sequence[int], logprobs_N: Tensor) -> Tensor:
        """Gradient [N] of the loss of some completions with respect to their log-probs."""
        with torch.enable_grad():
            logprobs_BT = split_rows(logprobs_N.detach(), lengths).requires_grad_()
            output = loss(logprobs_BT, rows_B)
            (grad_BT,) = torch.autograd.grad(output.loss, logprobs_BT)
        self.loss += float(output.loss.detach())
        for name, value in output.metrics.items():
            self.metrics[name] = self.metrics.get(name, 0.0) + value
        if not self.reason and not bool(logprobs_N.isfinite().all()):
            self.reason = "a log-prob of the policy is not finite"
        if not self.reason and not math.isfinite(self.loss):
            self.reason = f"the loss is {self.loss}"
        return torch.cat([grad_T[:length] for grad_T, length in zip(grad_BT, lengths, strict=True)])


def _head_parts(lengths: Sequence[int], chunk: int) -> Iterator[tuple[slice, slice]]:
    """Neighboring completions of up to `chunk` tokens (one at least), and their places among all tokens."""
    first = start = stop = 0
    for row, length in enumerate(lengths):
        if row > first and stop - start + length > chunk:
            yield slice(first, row), slice(start, stop)
            first, start = row, stop
        stop += length
    yield slice(first, len(lengths)), slice(start, stop)


def _gradient(parameter: Tensor) -> Tensor:
    """The gradient that products are added to; zero before the first."""
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    return parameter.grad
