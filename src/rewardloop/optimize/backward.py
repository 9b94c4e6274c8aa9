"""From a loss of log-probs to the gradients of the weights, micro-batch by micro-batch.

    1  one forward pass of the trunk, in bfloat16 where the processor has it, over float32 weights
    2  through the head, some completions at a time: log-probs, the loss's gradient, the head's gradients
    3  one backward pass of the trunk

Step 2 is why a loss must add up over completions (functional/losses): its gradient with respect to the
log-probs of a few completions is known as soon as they are, while their logits are still at hand.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from rewardloop.functional.head import backward_through_head, default_chunk
from rewardloop.functional.losses import LossOutput
from rewardloop.hardware import computing_in
from rewardloop.models.language_model import LanguageModel
from rewardloop.models.packed import (
    PackedBatch,
    completion_rows,
    completion_targets,
    output_head,
    packed_hidden,
    split_rows,
)

# A loss of the log-probs [b, t] of some completions, whose rows in the caller's order are the second argument.
# It must add up: the losses of any partition of the rows sum to the loss of the batch.
Loss = Callable[[Tensor, Tensor], LossOutput]


class GradientPass:
    """Adds the gradient of one loss to the `grad` of the weights. Made for one step, used within `computing_in`."""

    def __init__(self, lm: LanguageModel, loss: Loss, dtype: torch.dtype, temperature: float) -> None:
        self._model = lm.model
        self._loss = loss
        self._dtype = dtype
        self._temperature = temperature
        self._weight_VD, self._bias_V = output_head(lm.model)
        self._computed_VD = self._weight_VD.detach().to(dtype)
        self.loss = 0.0
        self.tokens = 0
        self.reason = ""  # why the gradient is of no use; empty while it is
        self.metrics: dict[str, float] = {}

    def add(self, batch: PackedBatch, rows: Sequence[int]) -> None:
        """One micro-batch: the completions of `rows`, in the caller's numbering."""
        embeddings_ND = self._embeddings(batch)
        hidden_ND = packed_hidden(self._model, batch, embeddings_ND)
        with computing_in(torch.float32, hidden_ND.device):
            states_ND = hidden_ND.index_select(0, completion_rows(batch))
            grad_ND = self._through_head(batch, rows, states_ND.detach().to(self._dtype))
            states_ND.backward(grad_ND.to(states_ND.dtype))  # type: ignore[no-untyped-call]
            self._add_embedding_gradient(batch, embeddings_ND)
        self.tokens += sum(batch.lengths)

    def _embeddings(self, batch: PackedBatch) -> Tensor | None:
        """The embeddings as a leaf of their own, or None where the model does more than look them up.

        Autograd would make a gradient [V, D] that is zero but for the tokens of this micro-batch.
        """
        table = self._model.get_input_embeddings()
        if type(table) is not nn.Embedding or not table.weight.requires_grad:
            return None
        return table.weight.detach()[batch.input_ids_N].requires_grad_()

    def _add_embedding_gradient(self, batch: PackedBatch, embeddings_ND: Tensor | None) -> None:
        if embeddings_ND is None or embeddings_ND.grad is None:
            return
        table = self._model.get_input_embeddings()
        grad_VD = _gradient(table.weight)
        assert grad_VD is not None  # `_embeddings` made a leaf because the table learns
        grad_ND = embeddings_ND.grad
        if table.padding_idx is not None:  # its embedding never learns
            grad_ND = grad_ND.masked_fill((batch.input_ids_N == table.padding_idx)[:, None], 0.0)
        grad_VD.index_add_(0, batch.input_ids_N, grad_ND)

    def _through_head(self, batch: PackedBatch, rows: Sequence[int], computed_ND: Tensor) -> Tensor:
        """Gradient of the loss with respect to the states that predict; the head's own goes to its weights."""
        targets_N = completion_targets(batch)
        grads = []
        for part, places in _parts(batch.completion_lengths, default_chunk(self._computed_VD)):
            rows_B = torch.tensor(rows[part], device=targets_N.device)
            grads.append(
                backward_through_head(
                    computed_ND[places],
                    self._computed_VD,
                    targets_N[places],
                    partial(self._loss_gradient, rows_B, batch.completion_lengths[part]),
                    _gradient(self._weight_VD),
                    bias_V=None if self._bias_V is None else self._bias_V.detach(),
                    bias_grad_V=None if self._bias_V is None else _gradient(self._bias_V),
                    temperature=self._temperature,
                )
            )
        return torch.cat(grads)

    def _loss_gradient(self, rows_B: Tensor, lengths: Sequence[int], logprobs_N: Tensor) -> Tensor:
        """Gradient [N] of the loss of some completions with respect to their log-probs."""
        with torch.enable_grad():
            logprobs_BT = split_rows(logprobs_N.detach(), lengths).requires_grad_()
            output = self._loss(logprobs_BT, rows_B)
            (grad_BT,) = torch.autograd.grad(output.loss, logprobs_BT)
        self.loss += float(output.loss.detach())
        for name, value in output.metrics.items():
            self.metrics[name] = self.metrics.get(name, 0.0) + value
        if not self.reason and not bool(logprobs_N.isfinite().all()):
            self.reason = "a log-prob of the policy is not finite"
        if not self.reason and not math.isfinite(self.loss):
            self.reason = f"the loss is {self.loss}"
        return torch.cat([grad_T[:length] for grad_T, length in zip(grad_BT, lengths, strict=True)])


def _parts(lengths: Sequence[int], chunk: int) -> Iterator[tuple[slice, slice]]:
    """Neighboring completions of up to `chunk` tokens (one at least), and their places among all tokens.

    Parts are about equal: a thin one costs nearly as much as a full one.
    """
    total = sum(lengths)
    chunk = min(chunk, -(-total // -(-total // chunk)) + max(lengths) // 2)
    first = start = stop = 0
    for row, length in enumerate(lengths):
        if row > first and stop - start + length > chunk:
            yield slice(first, row), slice(start, stop)
            first, start = row, stop
        stop += length
    yield slice(first, len(lengths)), slice(start, stop)


def _gradient(parameter: Tensor) -> Tensor | None:
    """The gradient that products are added to, zero before the first; None for what does not learn."""
    if parameter.requires_grad and parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    return parameter.grad
