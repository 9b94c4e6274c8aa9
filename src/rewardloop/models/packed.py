"""Many sequences through a model at once, end to end and without padding: a packed batch.

    tokens     prompt 0, completion 0, prompt 1, completion 1, ...    positions start at 0 in every sequence

All layers but attention see N tokens in a row. Attention is transformers' own extension point: a function
registered there splits the row into groups of sequences of about equal length and runs each group causally,
so that every architecture that supports the extension point works packed, as it is. Others run padded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final, cast

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from torch.nn.utils.rnn import pad_sequence
from transformers import AttentionInterface

from rewardloop.errors import ModelError
from rewardloop.functional.head import chunked_logprobs
from rewardloop.hardware import Precision, compute_dtype, computing_in

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PACKED_ATTENTION: Final = "rewardloop_packed"

# In a group, attention is padded to the longest sequence; one below this share of it starts a new group.
LEAST_FILL: Final = 0.75

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
        return tuple(_attention_groups(self.lengths, self.input_ids_N.device))

    @property
    def completion_lengths(self) -> tuple[int, ...]:
        return tuple(s - p for s, p in zip(self.lengths, self.prompt_lengths, strict=True))


@dataclass(frozen=True, slots=True, eq=False)
class AttentionGroup:
    """Neighbors of about equal length, which attention runs on together, padded to the longest."""

    start: int  # first and one past the last token in the packed row
    stop: int
    sequences: int
    longest: int
    to_padded: Tensor | None  # of each padded place, its token in the group; None where nothing is padded
    to_packed: Tensor | None  # of each token, its padded place


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
    with _packed_attention(trunk.config):
        output = trunk(
            inputs_embeds=embeddings_ND[None],
            position_ids=batch.position_ids_N[None],
            use_cache=False,
            packed_groups=batch.groups,
        )
    return cast(Tensor, output.last_hidden_state[0])


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


# ---------------------------------------------------------------- attention


@contextmanager
def _packed_attention(config: Any) -> Iterator[None]:
    """The model's attention is ours inside, and what it was before afterwards."""
    before = config._attn_implementation
    config._attn_implementation = PACKED_ATTENTION
    try:
        yield
    finally:
        config._attn_implementation = before


def _attend(
    module: torch.nn.Module,
    query_1HND: Tensor,
    key_1HND: Tensor,
    value_1HND: Tensor,
    attention_mask: Tensor | None,
    *,
    packed_groups: tuple[AttentionGroup, ...],
    scaling: float | None = None,
    sliding_window: int | None = None,
    dropout: float = 0.0,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **_: object,
) -> tuple[Tensor, None]:
    """Causal attention within each sequence of a packed row, as transformers calls it: [1, N, H, head width].

    `attention_mask` is None: transformers makes none for an attention that has not registered one.
    """
    if softcap is not None or s_aux is not None:
        raise ModelError(
            f"the attention of {type(module).__name__} has soft caps or sinks, which are not supported; "
            "take a model of another architecture"
        )
    parts = []
    for group in packed_groups:
        output_GHLD = _attention(
            *(_padded(x_1HND, group) for x_1HND in (query_1HND, key_1HND, value_1HND)),
            attn_mask=_window_mask(group.longest, sliding_window, query_1HND.device),
            is_causal=sliding_window is None or sliding_window >= group.longest,
            dropout_p=dropout,
            scale=scaling,
            enable_gqa=key_1HND.shape[1] != query_1HND.shape[1],
        )
        parts.append(_packed(output_GHLD, group))
    return torch.cat(parts)[None], None


AttentionInterface.register(PACKED_ATTENTION, _attend)


def _attention(query: Tensor, key: Tensor, value: Tensor, **options: Any) -> Tensor:
    """On a processor in float32: there the backward pass in bfloat16 takes twice as long, and is less exact."""
    if query.device.type != "cpu":
        return scaled_dot_product_attention(query, key, value, **options)
    with computing_in(torch.float32, "cpu"):
        output = scaled_dot_product_attention(query.float(), key.float(), value.float(), **options)
    return output.to(query.dtype)


def _padded(x_1HND: Tensor, group: AttentionGroup) -> Tensor:
    """[G, H, L, D]. Pads come after the real tokens, so that a causal attention never looks at them."""
    x_NHD = x_1HND[0, :, group.start : group.stop].transpose(0, 1)
    if group.to_padded is not None:
        x_NHD = x_NHD.index_select(0, group.to_padded)
    return x_NHD.reshape(group.sequences, group.longest, *x_NHD.shape[1:]).transpose(1, 2)


def _packed(x_GHLD: Tensor, group: AttentionGroup) -> Tensor:
    x_NHD = x_GHLD.transpose(1, 2).flatten(0, 1)
    return x_NHD if group.to_packed is None else x_NHD.index_select(0, group.to_packed)


def _window_mask(longest: int, sliding_window: int | None, device: torch.device) -> Tensor | None:
    if sliding_window is None or sliding_window >= longest:
        return None
    ones_LL = torch.ones(longest, longest, dtype=torch.bool, device=device)
    return ones_LL.tril() & ~ones_LL.tril(-sliding_window)


def _attention_groups(lengths: Sequence[int], device: torch.device) -> Iterator[AttentionGroup]:
    start = 0
    for members in _similar(lengths):
        stop = start + sum(members)
        to_padded = to_packed = None
        if min(members) < max(members):
            to_padded, to_packed = _padding_index(members, device)
        yield AttentionGroup(start, stop, len(members), max(members), to_padded, to_packed)
        start = stop


def _similar(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Runs of neighbors whose shortest is at least LEAST_FILL of their longest."""
    members: list[int] = []
    for length in lengths:
        if members and min(*members, length) < LEAST_FILL * max(*members, length):
            yield members
            members = []
        members.append(length)
    if members:
        yield members


def _padding_index(lengths: Sequence[int], device: torch.device) -> tuple[Tensor, Tensor]:
    lengths_G1 = torch.tensor(lengths)[:, None]
    places_L = torch.arange(max(lengths))
    starts_G1 = lengths_G1.cumsum(0) - lengths_G1
    # a pad repeats the last token of its sequence
    to_padded_GL = starts_G1 + torch.minimum(places_L, lengths_G1 - 1)
    real_GL = places_L < lengths_G1
    return to_padded_GL.flatten().to(device), real_GL.flatten().nonzero()[:, 0].to(device)


def _padded_hidden(trunk: Any, batch: PackedBatch, embeddings_ND: Tensor) -> Tensor:
    """The plain way, for architectures without the extension point."""
    embeddings_BSD = split_rows(embeddings_ND, batch.lengths)
    lengths_B1 = torch.tensor(batch.lengths, device=embeddings_BSD.device)[:, None]
    mask_BS = torch.arange(embeddings_BSD.shape[1], device=embeddings_BSD.device) < lengths_B1
    output = trunk(inputs_embeds=embeddings_BSD, attention_mask=mask_BS.long(), use_cache=False)
    return cast(Tensor, output.last_hidden_state[mask_BS])
