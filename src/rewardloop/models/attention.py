"""Attention for a packed row of sequences, through transformers' own extension point.

A function registered there shows every sequence its own tokens, in groups of about equal length that run
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

# A group is padded to its longest sequence; one below this share of it starts a new group.
LEAST_FILL: Final = 0.75


@dataclass(frozen=True, slots=True, eq=False)
class AttentionPlan:
    """Sequences of a packed row in groups of about equal length, padded in each to its longest, end to end."""

    groups: tuple[tuple[int, int], ...]  # sequences, and tokens of the longest
    to_padded: Tensor | None  # of each padded place, its token in the row; None where the two are the same
    to_packed: Tensor | None  # of each token in the row, its padded place: of a shared one the first

    def padded(self, x_N: Tensor) -> list[Tensor]:
        """[G, L, ...] of each group. Pads come after the real tokens: a causal attention never looks at them."""
        if self.to_padded is not None:
            x_N = x_N.index_select(0, self.to_padded)
        parts = torch.split(x_N, [sequences * longest for sequences, longest in self.groups])
        return [part.reshape(*group, *x_N.shape[1:]) for part, group in zip(parts, self.groups, strict=True)]

    def packed(self, parts: Sequence[Tensor]) -> Tensor:
        """The row [N, ...] again, of what `padded` gave."""
        x_M = torch.cat([part.flatten(0, 1) for part in parts])
        return x_M if self.to_packed is None else x_M.index_select(0, self.to_packed)


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
    packed_plan: AttentionPlan,
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
    padded = (packed_plan.padded(x_1HND[0].transpose(0, 1)) for x_1HND in (query_1HND, key_1HND, value_1HND))
    for query_GLHD, key_GLHD, value_GLHD in zip(*padded, strict=True):
        longest = query_GLHD.shape[1]
        output_GHLD = _attention(
            query_GLHD.transpose(1, 2),
            key_GLHD.transpose(1, 2),
            value_GLHD.transpose(1, 2),
            attn_mask=_window_mask(longest, sliding_window, query_1HND.device),
            is_causal=sliding_window is None or sliding_window >= longest,
            dropout_p=dropout,
            scale=scaling,
            enable_gqa=key_1HND.shape[1] != query_1HND.shape[1],
        )
        parts.append(output_GHLD.transpose(1, 2))
    return packed_plan.packed(parts)[None], None


AttentionInterface.register(PACKED_ATTENTION, _attend)


def _attention(query: Tensor, key: Tensor, value: Tensor, **options: Any) -> Tensor:
    """On a processor in float32: there the backward pass in bfloat16 takes twice as long, and is less exact."""
    if query.device.type != "cpu":
        return scaled_dot_product_attention(query, key, value, **options)
    with computing_in(torch.float32, "cpu"):
        output = scaled_dot_product_attention(query.float(), key.float(), value.float(), **options)
    return output.to(query.dtype)


def _window_mask(longest: int, sliding_window: int | None, device: torch.device) -> Tensor | None:
    if sliding_window is None or sliding_window >= longest:
        return None
    ones_LL = torch.ones(longest, longest, dtype=torch.bool, device=device)
    return ones_LL.tril() & ~ones_LL.tril(-sliding_window)


def plan_attention(places: Sequence[Tensor], device: torch.device, *, least_fill: float = LEAST_FILL) -> AttentionPlan:
    """The plan for sequences whose tokens lie at `places` in the row; they may share tokens."""
    groups, padded = [], []
    for members in _similar(sorted(places, key=len, reverse=True), least_fill):
        longest = len(members[0])
        groups.append((len(members), longest))
        # a pad repeats the last token of its sequence
        padded += [places_S[torch.arange(longest).clamp(max=len(places_S) - 1)] for places_S in members]
    to_padded_M = torch.cat(padded)
    tokens = 1 + int(to_padded_M.max())
    if torch.equal(to_padded_M, torch.arange(tokens)):
        return AttentionPlan(tuple(groups), None, None)
    # the first place of a token is never a pad: those come after the token that they repeat
    to_packed_N = torch.full((tokens,), len(to_padded_M))
    to_packed_N.scatter_reduce_(0, to_padded_M, torch.arange(len(to_padded_M)), "amin")
    return AttentionPlan(tuple(groups), to_padded_M.to(device), to_packed_N.to(device))


def _similar(places: Sequence[Tensor], least_fill: float) -> Iterator[list[Tensor]]:
    """Runs of sequences, which come longest first, whose shortest is at least `least_fill` of their longest."""
    members: list[Tensor] = []
    for places_S in places:
        if members and len(places_S) < least_fill * len(members[0]):
            yield members
            members = []
        members.append(places_S)
    yield members
