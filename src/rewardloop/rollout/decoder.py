"""One functional decoder for all families: rows of tokens in, hidden states out, keys and values cached.

The cache is one tensor a layer, kv_2RHSC: keys and values, slot, key-value head, position, head width. A
single query against it is a plain batched product, which on a CPU is faster than
scaled_dot_product_attention: 1.3 times in float32, several times in bfloat16.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.activations import ACT2FN

from rewardloop.errors import ModelError
from rewardloop.rollout.families import (
    Architecture,
    DecoderWeights,
    Norm,
    find_family,
    read_weights,
    rotary_table,
)
from rewardloop.rollout.projection import Projection


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """One block, laid out for decoding."""

    attention_norm: Norm
    qkv: Projection
    query_norm: Norm | None
    key_norm: Norm | None
    out: Projection
    feed_norm: Norm
    up: Projection
    down: Projection


class Decoder:
    """A model's forward pass over a slot cache. It holds copies of the weights; `load` replaces them.

    The linear maps of the blocks run in `dtype`. The residual stream, norms and logits are float32, and on a
    CPU also the cache and attention, which has no fast bfloat16 product for a single query.
    """

    def __init__(self, model: Any, dtype: torch.dtype, length: int) -> None:
        self._config = model.config
        self._family = find_family(model)
        self.shape: Architecture = self._family.describe(model.config)
        self.device: torch.device = model.device
        self.dtype = dtype
        self.cache_dtype = torch.float32 if self.device.type == "cpu" else dtype
        self._rotary = rotary_table(model, self._family, length)
        self._activation = ACT2FN[self.shape.activation]
        tensors = model.state_dict()
        self._shapes = {name: tensor.shape for name, tensor in tensors.items()}
        self._lay_out(read_weights(self._family, model.config, tensors))

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Replace all weights by tensors named as in the model's state_dict.

        Raises ModelError, with nothing changed, where one is missing or of another shape.
        """
        for name, shape in self._shapes.items():
            if name in tensors and tensors[name].shape != shape:
                raise ModelError(
                    f"the tensor {name} is {tuple(tensors[name].shape)}, and the model's is {tuple(shape)}; "
                    "give weights of the same architecture"
                )
        placed = {name: tensors[name].to(self.device) for name in self._shapes if name in tensors}
        self._lay_out(read_weights(self._family, self._config, placed))

    def new_cache(self, slots: int, length: int) -> list[Tensor]:
        """Zeros: what lies beyond a sequence is multiplied by 0 and so must be finite."""
        size = (2, slots, self.shape.kv_heads, length, self.shape.head_dim)
        return [
            torch.zeros(size, dtype=self.cache_dtype, device=self.device) for _ in range(self._config.num_hidden_layers)
        ]

    def decode(self, cache: list[Tensor], tokens_B: Tensor, positions_B: Tensor, longest: int) -> Tensor:
        """One token for each of the first B slots: logits_BV of the next, float32.

        `positions_B`: the place of each token, whose key and value are written there; `longest` is one more
        than the largest of them.
        """
        return self.logits(self.states(cache, tokens_B, positions_B, longest))

    def logits(self, states_BD: Tensor) -> Tensor:
        """What `states` say of the next token: logits_BV, float32."""
        return self._head(states_BD)

    def states(self, cache: list[Tensor], tokens_B: Tensor, positions_B: Tensor, longest: int) -> Tensor:
        """As `decode`, up to the hidden states after the final norm: states_BD."""
        rows_B = torch.arange(len(tokens_B), device=self.device)
        hidden_BD, rotation = self._embed(tokens_B, positions_B)
        columns_S = torch.arange(longest, device=self.device)
        unseen_BS = columns_S > positions_B[:, None]
        mask_BS = torch.zeros(unseen_BS.shape, dtype=self.cache_dtype, device=self.device)
        mask_BS.masked_fill_(unseen_BS, -torch.inf)
        mask = mask_BS.repeat_interleave(self.shape.kv_heads, 0)[:, None]
        for layer, kv in zip(self._layers, cache, strict=True):
            query_BHC, kv_B2HC = self._project(layer, hidden_BD, rotation)
            kv[:, rows_B, :, positions_B] = kv_B2HC
            mixed_BD = self._attend(query_BHC, kv[:, : len(tokens_B)], mask, longest)
            hidden_BD = self._finish(layer, hidden_BD, mixed_BD)
        return self._norm(hidden_BD, self._final_norm)

    def prefill(self, cache: list[Tensor], prompts: list[Tensor], slots: list[list[int]]) -> None:
        """Write the keys and values of whole prompts; prompt i goes into each slot of slots[i].

        All prompts run end to end as rows of one pass, without padding.
        """
        lengths = [len(prompt) for prompt in prompts]
        positions_N = torch.cat([torch.arange(length) for length in lengths]).to(self.device)
        hidden_ND, rotation = self._embed(torch.cat(prompts).to(self.device), positions_N)
        row_M, slot_M = (index.to(self.device) for index in _destinations(lengths, slots))
        position_M = positions_N[row_M]
        groups = _equal_lengths(lengths)
        last = len(self._layers) - 1
        for at, (layer, kv) in enumerate(zip(self._layers, cache, strict=True)):
            query_NHC, kv_N2HC = self._project(layer, hidden_ND, rotation)
            kv[:, slot_M, :, position_M] = kv_N2HC[row_M]
            if at == last:  # the keys and values are all that is wanted
                return
            hidden_ND = self._finish(layer, hidden_ND, self._attend_causal(query_NHC, kv_N2HC, groups))

    def _embed(self, tokens_N: Tensor, positions_N: Tensor) -> tuple[Tensor, Tensor | None]:
        hidden_ND = F.embedding(tokens_N, self._embedding_VD)
        if self._positions_SD is not None:
            return hidden_ND + F.embedding(positions_N, self._positions_SD), None
        assert self._rotary is not None
        # written out for every head once: a product that broadcasts is several times slower, in every layer
        heads = self.shape.heads + self.shape.kv_heads
        return hidden_ND, self._rotary[positions_N][:, None].expand(-1, heads, -1).contiguous()

    def _project(self, layer: Layer, hidden_ND: Tensor, rotation: Tensor | None) -> tuple[Tensor, Tensor]:
        """Queries [N, heads, C], and keys and values [N, 2, kv_heads, C], normalized and rotated."""
        shape = self.shape
        qkv_N = layer.qkv(self._norm(hidden_ND, layer.attention_norm)).float()
        qkv_NHC = torch.unflatten(qkv_N, -1, (-1, shape.head_dim))
        turned = qkv_NHC[:, : shape.heads + shape.kv_heads]
        if layer.query_norm is not None and layer.key_norm is not None:
            query, key = turned[:, : shape.heads], turned[:, shape.heads :]
            query.copy_(self._norm(query, layer.query_norm))
            key.copy_(self._norm(key, layer.key_norm))
        if rotation is not None:
            pairs = torch.unflatten(turned[..., : shape.rotary_dim], -1, (-1, 2))
            torch.view_as_complex(pairs).mul_(rotation)
        qkv_NHC = qkv_NHC.to(self.cache_dtype)
        kv_N2HC = torch.unflatten(qkv_NHC[:, shape.heads :], 1, (2, shape.kv_heads))
        return qkv_NHC[:, : shape.heads], kv_N2HC

    def _attend(self, query_BHC: Tensor, kv: Tensor, mask: Tensor, longest: int) -> Tensor:
        """One query a row against its slot: batched over slots and key-value heads."""
        rows, kv_heads = len(query_BHC), self.shape.kv_heads
        key, value = (part.flatten(0, 1)[:, :longest] for part in kv)
        query = query_BHC.reshape(rows * kv_heads, -1, self.shape.head_dim)
        weights = torch.softmax(torch.baddbmm(mask, query, key.transpose(1, 2)), dim=-1)
        return torch.bmm(weights, value).view(rows, -1)

    def _attend_causal(self, query_NHC: Tensor, kv_N2HC: Tensor, groups: list[tuple[int, Tensor]]) -> Tensor:
        """Causal attention within each prompt; prompts of equal length go together."""
        mixed_NHC = torch.empty_like(query_NHC)
        for length, row_M in groups:
            query, key, value = (
                torch.unflatten(part[row_M], 0, (-1, length)).transpose(1, 2)
                for part in (query_NHC, kv_N2HC[:, 0], kv_N2HC[:, 1])
            )
            mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True, scale=1.0, enable_gqa=True)
            mixed_NHC[row_M] = mixed.transpose(1, 2).flatten(0, 1)
        return mixed_NHC.flatten(1)

    def _finish(self, layer: Layer, hidden_ND: Tensor, mixed_ND: Tensor) -> Tensor:
        """The rest of a block: output projection and feed-forward, added to the residual stream."""
        attended_ND = hidden_ND + layer.out(mixed_ND)
        up = layer.up(self._norm(hidden_ND if self.shape.parallel else attended_ND, layer.feed_norm))
        if self.shape.gated:
            gate, up = up.chunk(2, dim=-1)
            up = self._activation(gate) * up
        else:
            up = self._activation(up)
        return attended_ND + layer.down(up)

    def _norm(self, x: Tensor, norm: Norm) -> Tensor:
        if self.shape.norm == "rms":
            return F.rms_norm(x, x.shape[-1:], norm.weight_D, self.shape.norm_eps)
        return F.layer_norm(x, x.shape[-1:], norm.weight_D, norm.bias_D, self.shape.norm_eps)

    def _lay_out(self, weights: DecoderWeights) -> None:
        self._embedding_VD = weights.embedding_VD.float().clone()
        self._positions_SD = None if weights.positions_SD is None else weights.positions_SD.float().clone()
        self._final_norm = _copied(weights.final_norm)
        self._head = Projection(weights.head, torch.float32)
        self._layers = [
            Layer(
                attention_norm=_copied(layer.attention_norm),
                qkv=Projection(layer.qkv, self.dtype),
                query_norm=layer.query_norm and _copied(layer.query_norm),
                key_norm=layer.key_norm and _copied(layer.key_norm),
                out=Projection(layer.out, self.dtype),
                feed_norm=_copied(layer.feed_norm),
                up=Projection(layer.up, self.dtype),
                down=Projection(layer.down, self.dtype),
            )
            for layer in weights.layers
        ]


def _copied(norm: Norm) -> Norm:
    return Norm(norm.weight_D.float().clone(), None if norm.bias_D is None else norm.bias_D.float().clone())


def _destinations(lengths: list[int], slots: list[list[int]]) -> tuple[Tensor, Tensor]:
    """For every cache entry to write: the row it comes from and the slot it goes to."""
    starts = torch.tensor([0, *lengths]).cumsum(0)[:-1].tolist()
    rows, owners = [], []
    for start, length, copies in zip(starts, lengths, slots, strict=True):
        rows += [torch.arange(start, start + length)] * len(copies)
        owners += [torch.full((length,), slot) for slot in copies]
    return torch.cat(rows), torch.cat(owners)


def _equal_lengths(lengths: list[int]) -> list[tuple[int, Tensor]]:
    """Rows of the prompts of each length, prompt after prompt."""
    groups: dict[int, list[Tensor]] = {}
    start = 0
    for length in lengths:
        groups.setdefault(length, []).append(torch.arange(start, start + length))
        start += length
    return [(length, torch.cat(rows)) for length, rows in groups.items()]
