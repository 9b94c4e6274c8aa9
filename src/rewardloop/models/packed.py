"""Many sequences through a model at once, end to end and without padding: a packed batch.

    tokens     prompt 0, completion 0, prompt 1, completion 1, ...    positions start at 0 in every sequence

All layers but attention see N tokens in a row; models/attention keeps the sequences apart. Architectures
without transformers' extension point for attention run padded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final, cast

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from rewardloop.errors import ModelError
from rewardloop.functional.head import chunked_logprobs
from rewardloop.hardware import Precision, compute_dtype, computing_in
from rewardloop.models.attention import AttentionGroup, attention_groups, packed_attention

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# What some architectures do to their logits behind the head, by the name of the setting and its idle value.
_AFTER_THE_HEAD: Final = {"final_logit_softcapping": None, "logit_scale": 1.0, "logits_scaling": 1.0}


@dataclass(frozen=True, eq=False)
class PackedBatch:
    """Sequences end to end. N = sum(lengths)."""

    input_ids_N: Tensor
    position_ids_N: Tensor
    lengths: tuple[int, ...]  # prompt + completion of each sequence
    prompt_lengths: tuple[int, ...]

    @cached_property
    def groups(self) -> tuple[AttentionGroup, ...]:
        return tuple(attention_groups(self.lengths, self.input_ids_N.device))

    @property
    def completion_lengths(self) -> tuple[int, ...]:
        return tuple(s - p for s, p in zip(self.lengths, self.prompt_lengths, strict=True))


def pack(
    prompt_ids: Sequence[Sequence[int]],
    token_ids: Sequence[Sequence[int]],
    device: torch.device | str = "cpu",
) -> PackedBatch:
    """Put prompts and their completions end to end; neighbors of similar length make attention cheap.

    Every prompt and every completion needs a token: a completion's first token is predicted from the prompt's
    last. Raises ModelError otherwise.
    """
    for row, (prompt, completion) in enumerate(zip(prompt_ids, token_ids, strict=True)):
        if not len(prompt) or not len(completion):
            empty = "completion" if len(prompt) else "prompt"
            raise ModelError(f"sequence {row} has an empty {empty}; give each at least one token")
    pairs = list(zip(prompt_ids, token_ids, strict=True))
    lengths = tuple(len(prompt) + len(completion) for prompt, completion in pairs)
    ids = [token for prompt, completion in pairs for part in (prompt, completion) for token in part]
    positions_N = torch.cat([torch.arange(length) for length in lengths])
    return PackedBatch(
        torch.tensor(ids, device=device),
        positions_N.to(device),
        lengths,
        tuple(len(prompt) for prompt in prompt_ids),
    )


def packed_hidden(model: PreTrainedModel, batch: PackedBatch, embeddings_ND: Tensor | None = None) -> Tensor:
    """Hidden states after the final norm, [N, D]; gradients flow. Row i has seen the tokens of its own
    sequence up to and including token i.

    `embeddings_ND` takes the place of the input embeddings of the batch, for who needs the gradient there.
    """
    trunk = cast(Any, model.base_model)
    if embeddings_ND is None:
        embeddings_ND = model.get_input_embeddings()(batch.input_ids_N)
    if not getattr(model, "_supports_attention_backend", False):
        return _padded_hidden(trunk, batch, embeddings_ND)
    with packed_attention(trunk.config):
        output = trunk(
            inputs_embeds=embeddings_ND[None],
            position_ids=batch.position_ids_N[None],
            use_cache=False,
            packed_groups=batch.groups,
        )
    return cast(Tensor, output.last_hidden_state[0])


def _padded_hidden(trunk: Any, batch: PackedBatch, embeddings_ND: Tensor) -> Tensor:
    """The plain way, for architectures without the extension point."""
    embeddings_BSD = split_rows(embeddings_ND, batch.lengths)
    lengths_B1 = torch.tensor(batch.lengths, device=embeddings_BSD.device)[:, None]
    mask_BS = torch.arange(embeddings_BSD.shape[1], device=embeddings_BSD.device) < lengths_B1
    output = trunk(inputs_embeds=embeddings_BSD, attention_mask=mask_BS.long(), use_cache=False)
    return cast(Tensor, output.last_hidden_state[mask_BS])


def completion_rows(batch: PackedBatch) -> Tensor:
    """Rows of the packed batch that predict a completion token, sequence after sequence.

    Token t of a completion is predicted at position P + t - 1 of its sequence.
    """
    starts = accumulate(batch.lengths, initial=0)
    rows = [
        torch.arange(start + prompt - 1, start + length - 1)
        for start, length, prompt in zip(starts, batch.lengths, batch.prompt_lengths, strict=False)
    ]
    return torch.cat(rows).to(batch.input_ids_N.device)


def completion_targets(batch: PackedBatch) -> Tensor:
    """The completion tokens, in the order of `completion_rows`."""
    return batch.input_ids_N[completion_rows(batch) + 1]


def output_head(model: PreTrainedModel) -> tuple[Tensor, Tensor | None]:
    """Weight [V, D] and bias [V] (or None) of the layer that makes logits of hidden states.

    Where the weight is tied, it is the input embedding itself. Raises ModelError for architectures that
    change their logits behind the head.
    """
    head = cast(Any, model.get_output_embeddings())
    if head is None:
        raise ModelError(f"{type(model).__name__} has no output head; a causal language model is expected")
    for setting, idle in _AFTER_THE_HEAD.items():
        if getattr(model.config, setting, idle) not in (idle, None):
            raise ModelError(
                f"{type(model).__name__} changes its logits behind the head ({setting}), which is not "
                "supported; take a model of another architecture"
            )
    return head.weight, getattr(head, "bias", None)


def split_rows(values_N: Tensor, lengths: Sequence[int]) -> Tensor:
    """Values of tokens (vectors too), sequence after sequence -> [B, T], right-padded with 0."""
    return pad_sequence(list(torch.split(values_N, list(lengths))), batch_first=True)


def plan_passes(lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Rows by falling length, cut into passes of at most `max_tokens` tokens (one sequence at least)."""
    passes: list[list[int]] = []
    tokens = 0
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        if not passes or tokens + lengths[row] > max_tokens:
            passes.append([])
            tokens = 0
        passes[-1].append(row)
        tokens += lengths[row]
    return passes


# ---------------------------------------------------------------- frozen models


@dataclass(frozen=True, eq=False)
class TrunkPass:
    """What one forward pass of a frozen model says about completions; float32, right-padded with 0."""

    logprobs_BT: Tensor
    hidden_BT1D: Tensor  # column t is the state s_t in which token t is chosen; column T has seen them all


@torch.no_grad()
def forward_completions(
    model: PreTrainedModel,
    prompt_ids: Sequence[Sequence[int]],
    token_ids: Sequence[Sequence[int]],
    *,
    temperature: float = 1.0,
    max_tokens_per_pass: int = 8192,
    precision: Precision = "float32",
) -> TrunkPass:
    """Log-probs of completions and all their states, from one forward of the trunk, without gradient."""
    lengths = [len(prompt) + len(ids) for prompt, ids in zip(prompt_ids, token_ids, strict=True)]
    logprobs: dict[int, Tensor] = {}
    hidden: dict[int, Tensor] = {}
    dtype = compute_dtype(precision, model.device)
    for rows in plan_passes(lengths, max_tokens_per_pass):
        batch = pack([prompt_ids[i] for i in rows], [token_ids[i] for i in rows], model.device)
        with computing_in(dtype, model.device):
            hidden_ND = packed_hidden(model, batch).float()
        logprobs_N = head_logprobs(model, hidden_ND, batch, temperature=temperature, dtype=dtype)
        logprobs.update(zip(rows, torch.split(logprobs_N, list(batch.completion_lengths)), strict=True))
        states = zip(torch.split(hidden_ND, list(batch.lengths)), batch.prompt_lengths, strict=True)
        hidden.update(zip(rows, [state_SD[prompt - 1 :] for state_SD, prompt in states], strict=True))
    order = range(len(lengths))
    return TrunkPass(
        pad_sequence([logprobs[i] for i in order], batch_first=True),
        pad_sequence([hidden[i] for i in order], batch_first=True),
    )


def head_logprobs(
    model: PreTrainedModel,
    hidden_ND: Tensor,
    batch: PackedBatch,
    *,
    temperature: float = 1.0,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Log-probs of the completion tokens from the hidden states of a packed batch; gradients flow."""
    weight_VD, bias_V = output_head(model)
    return chunked_logprobs(
        hidden_ND[completion_rows(batch)].to(dtype),
        weight_VD.to(dtype),
        completion_targets(batch),
        bias_V=bias_V,
        temperature=temperature,
    )
