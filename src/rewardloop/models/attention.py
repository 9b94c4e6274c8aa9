"""Attention for a packed row of sequences, through transformers' own extension point.

A function registered there splits the row into groups of neighbors of about equal length and runs each group
causally, so that every architecture that supports the extension point works packed, as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from rewardloop.errors import ModelError
from rewardloop.hardware import computing_in

PACKED_ATTENTION: Final = "rewardloop_packed"

# In a group, attention is padded to the longest sequence; one below this share of it starts a new group.
LEAST_FILL: Final = 0.75


@dataclass(frozen=True, slots=True, eq=False)
class AttentionGroup:
    """Neighbors of about equal length, which attention runs on together, padded to the longest."""

    start: int  # first and one past the last token in the packed row
    stop: int
    sequences: int
    longest: int
    to_padded: Tensor | None  # of each padded place, its token in the group; None where nothing is padded
    to_packed: Tensor | None  # of each token, its padded place


@contextmanager
def packed_attention(config: Any) -> Iterator[None]:
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


def attention_groups(lengths: Sequence[int], device: torch.device) -> Iterator[AttentionGroup]:
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
