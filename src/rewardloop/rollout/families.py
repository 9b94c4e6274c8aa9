"""What our decoder must know of an architecture: a description and its weights, family by family.

To add a family, write one function that reads its tensors into `DecoderWeights` and name it in FAMILIES.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from rewardloop.errors import ModelError

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class Architecture:
    """The shape of a decoder-only transformer with pre-normalization, as the functional decoder reads it."""

    heads: int
    kv_heads: int  # fewer than heads: grouped-query attention
    head_dim: int
    rotary_dim: int  # leading part of each head that is rotated; 0 = learned positions
    norm: Literal["rms", "layer"]
    norm_eps: float
    activation: str  # transformers' name
    gated: bool  # up = activation(gate) * up
    parallel: bool  # attention and feed-forward read the same residual


@dataclass(frozen=True, slots=True)
class Dense:
    """A linear map: x weight_OI^T + bias_O."""

    weight_OI: Tensor
    bias_O: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Norm:
    """Scale, and shift where the family has one."""

    weight_D: Tensor
    bias_D: Tensor | None = None


@dataclass(frozen=True, slots=True)
class LayerWeights:
    """One block. Queries are scaled by the attention scale; rotated pairs lie next to each other."""

    attention_norm: Norm
    qkv: Dense  # rows: all query heads, all key heads, all value heads
    query_norm: Norm | None
    key_norm: Norm | None
    out: Dense
    feed_norm: Norm
    up: Dense  # gated: rows of the gate, then rows of the up projection
    down: Dense


@dataclass(frozen=True, slots=True)
class DecoderWeights:
    """Everything the decoder computes with, float32, as copies or views of the model's tensors."""

    embedding_VD: Tensor
    positions_SD: Tensor | None
    layers: tuple[LayerWeights, ...]
    final_norm: Norm
    head: Dense


@dataclass(frozen=True, slots=True)
class Family:
    """How one family of models is read."""

    describe: Callable[[Any], Architecture]
    layer: Callable[[Any, Architecture, Tensors, int], LayerWeights]
    embedding: str
    positions: str | None
    final_norm: str
    rotary: Callable[[Any], Any]  # model -> its rotary module, whose table we take as it is


def find_family(model: Any) -> Family:
    """The family of a loaded model. Raises ModelError where the decoder has none for it."""
    kind = model.config.model_type
    if kind not in FAMILIES:
        raise ModelError(
            f"the decode engine knows {', '.join(sorted(FAMILIES))}, and this model is {kind!r}; "
            "take a model of these families, or add a description of yours to rollout/families.py"
        )
    family = FAMILIES[kind]
    rope = (getattr(model.config, "rope_parameters", None) or {}).get("rope_type", "default")
    if rope in ("dynamic", "longrope"):
        raise ModelError(
            f"rotary positions of type {rope!r} change with the length of the text, which a key-value cache "
            "cannot follow; take a model with another rope_type"
        )
    return family


def attention_window(model: Any) -> int | None:
    """How many positions back a token sees where the model's attention slides; None = all."""
    config = model.config
    kinds = getattr(config, "layer_types", None)
    window = getattr(config, "sliding_window", None)
    if window is None or (kinds is not None and "sliding_attention" not in kinds):
        return None
    return int(window)


def read_weights(family: Family, config: Any, tensors: Tensors) -> DecoderWeights:
    """The decoder's weights from tensors named as in the model's state_dict.

    Raises ModelError where a tensor is missing.
    """
    architecture = family.describe(config)
    try:
        embedding_VD = tensors[family.embedding]
        return DecoderWeights(
            embedding_VD=embedding_VD,
            positions_SD=None if family.positions is None else tensors[family.positions],
            layers=tuple(family.layer(config, architecture, tensors, at) for at in range(config.num_hidden_layers)),
            final_norm=_norm(tensors, family.final_norm),
            # tied heads are left out of safetensors files
            head=Dense(tensors.get("lm_head.weight", embedding_VD), tensors.get("lm_head.bias")),
        )
    except KeyError as error:
        raise ModelError(
            f"the weights lack the tensor {error.args[0]!r}; give a state_dict of a {config.model_type} model"
        ) from error


def rotary_table(model: Any, family: Family, length: int) -> Tensor | None:
    """cos + i sin of every position and frequency, complex64 [length, rotary_dim / 2]: the model's own."""
    if family.positions is not None:
        return None
    module = family.rotary(model)
    positions = torch.arange(length, device=model.device)[None]
    cos, sin = module(torch.zeros(1, device=model.device), positions)
    half = cos.shape[-1] // 2
    return torch.complex(cos[0, :, :half].float(), sin[0, :, :half].float())


# ---------------------------------------------------------------- Llama, Mistral, Qwen2, Qwen3


def _describe_llama(config: Any) -> Architecture:
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return Architecture(
        heads=config.num_attention_heads,
        kv_heads=config.num_key_value_heads,
        head_dim=head_dim,
        rotary_dim=head_dim,
        norm="rms",
        norm_eps=config.rms_norm_eps,
        activation=config.hidden_act,
        gated=True,
        parallel=False,
    )


def _llama_layer(config: Any, shape: Architecture, tensors: Tensors, at: int) -> LayerWeights:
    name = f"model.layers.{at}"
    parts = [_dense(tensors, f"{name}.self_attn.{part}_proj") for part in "qkv"]
    query_norm = _optional_norm(tensors, f"{name}.self_attn.q_norm")
    key_norm = _optional_norm(tensors, f"{name}.self_attn.k_norm")
    scale = shape.head_dim**-0.5
    if query_norm is not None and key_norm is not None:
        # the norm undoes a scale before it; its weights go in the order of the rotated pairs
        query_norm = Norm(_paired(query_norm.weight_D * scale, shape))
        key_norm, scale = Norm(_paired(key_norm.weight_D, shape)), 1.0
    return LayerWeights(
        attention_norm=_norm(tensors, f"{name}.input_layernorm"),
        qkv=_join_qkv(parts, shape, scale),
        query_norm=query_norm,
        key_norm=key_norm,
        out=_dense(tensors, f"{name}.self_attn.o_proj"),
        feed_norm=_norm(tensors, f"{name}.post_attention_layernorm"),
        up=_stack([_dense(tensors, f"{name}.mlp.{part}_proj") for part in ("gate", "up")]),
        down=_dense(tensors, f"{name}.mlp.down_proj"),
    )


# ---------------------------------------------------------------- GPT-2


def _describe_gpt2(config: Any) -> Architecture:
    return Architecture(
        heads=config.num_attention_heads,
        kv_heads=config.num_attention_heads,
        head_dim=config.hidden_size // config.num_attention_heads,
        rotary_dim=0,
        norm="layer",
        norm_eps=config.layer_norm_epsilon,
        activation=config.activation_function,
        gated=False,
        parallel=False,
    )


def _gpt2_layer(config: Any, shape: Architecture, tensors: Tensors, at: int) -> LayerWeights:
    name = f"transformer.h.{at}"
    scale = shape.head_dim**-0.5 if config.scale_attn_weights else 1.0
    if config.scale_attn_by_inverse_layer_idx:
        scale /= at + 1
    fused = _transposed(tensors, f"{name}.attn.c_attn")
    assert fused.bias_O is not None
    parts = zip(fused.weight_OI.chunk(3), fused.bias_O.chunk(3), strict=True)
    return LayerWeights(
        attention_norm=_norm(tensors, f"{name}.ln_1"),
        qkv=_join_qkv([Dense(weight, bias) for weight, bias in parts], shape, scale),
        query_norm=None,
        key_norm=None,
        out=_transposed(tensors, f"{name}.attn.c_proj"),
        feed_norm=_norm(tensors, f"{name}.ln_2"),
        up=_transposed(tensors, f"{name}.mlp.c_fc"),
        down=_transposed(tensors, f"{name}.mlp.c_proj"),
    )


# ---------------------------------------------------------------- GPT-NeoX (Pythia)


def _describe_gpt_neox(config: Any) -> Architecture:
    head_dim = config.hidden_size // config.num_attention_heads
    return Architecture(
        heads=config.num_attention_heads,
        kv_heads=config.num_attention_heads,
        head_dim=head_dim,
        rotary_dim=int(head_dim * config.rope_parameters.get("partial_rotary_factor", 1.0)),
        norm="layer",
        norm_eps=config.layer_norm_eps,
        activation=config.hidden_act,
        gated=False,
        parallel=config.use_parallel_residual,
    )


def _gpt_neox_layer(config: Any, shape: Architecture, tensors: Tensors, at: int) -> LayerWeights:
    name = f"gpt_neox.layers.{at}"
    fused = _dense(tensors, f"{name}.attention.query_key_value")
    # rows of head 0 (query, key, value), rows of head 1, ...
    weights = torch.unflatten(fused.weight_OI, 0, (shape.heads, 3, shape.head_dim)).unbind(1)
    biases: tuple[Tensor | None, ...] = (None,) * 3
    if fused.bias_O is not None:
        biases = torch.unflatten(fused.bias_O, 0, (shape.heads, 3, shape.head_dim)).unbind(1)
    parts = [
        Dense(weight.flatten(0, 1), None if bias is None else bias.flatten())
        for weight, bias in zip(weights, biases, strict=True)
    ]
    return LayerWeights(
        attention_norm=_norm(tensors, f"{name}.input_layernorm"),
        qkv=_join_qkv(parts, shape, shape.head_dim**-0.5),
        query_norm=None,
        key_norm=None,
        out=_dense(tensors, f"{name}.attention.dense"),
        feed_norm=_norm(tensors, f"{name}.post_attention_layernorm"),
        up=_dense(tensors, f"{name}.mlp.dense_h_to_4h"),
        down=_dense(tensors, f"{name}.mlp.dense_4h_to_h"),
    )


# ---------------------------------------------------------------- tensors by name


def _dense(tensors: Tensors, name: str) -> Dense:
    return Dense(tensors[f"{name}.weight"], tensors.get(f"{name}.bias"))


def _transposed(tensors: Tensors, name: str) -> Dense:
    """GPT-2 keeps its linear maps the other way round."""
    return Dense(tensors[f"{name}.weight"].T, tensors[f"{name}.bias"])


def _norm(tensors: Tensors, name: str) -> Norm:
    return Norm(tensors[f"{name}.weight"], tensors.get(f"{name}.bias"))


def _optional_norm(tensors: Tensors, name: str) -> Norm | None:
    return _norm(tensors, name) if f"{name}.weight" in tensors else None


def _stack(parts: list[Dense]) -> Dense:
    biases = [part.bias_O for part in parts if part.bias_O is not None]
    return Dense(torch.cat([part.weight_OI for part in parts]), torch.cat(biases) if biases else None)


def _join_qkv(parts: list[Dense], shape: Architecture, scale: float) -> Dense:
    """One map for query, key and value: queries scaled, rotated pairs of queries and keys side by side."""

    def ready(part: Dense, factor: float) -> Dense:
        bias = None if part.bias_O is None else _paired(part.bias_O, shape) * factor
        return Dense(_paired(part.weight_OI, shape) * factor, bias)

    query, key, value = parts
    return _stack([ready(query, scale), ready(key, 1.0), value])


def _paired(rows: Tensor, shape: Architecture) -> Tensor:
    """Rows of each head from (x0 x1 .. | y0 y1 ..) to (x0 y0 x1 y1 ..): a rotation is one complex product.

    Dot products of queries and keys do not change, because both are reordered alike.
    """
    if shape.rotary_dim == 0:
        return rows
    half = shape.rotary_dim // 2
    order = torch.arange(shape.head_dim)
    order[: shape.rotary_dim] = torch.arange(shape.rotary_dim).view(2, half).T.flatten()
    heads = torch.unflatten(rows, 0, (-1, shape.head_dim))
    return heads[:, order.to(rows.device)].flatten(0, 1)


def _families() -> Iterator[tuple[str, Family]]:
    llama = Family(
        describe=_describe_llama,
        layer=_llama_layer,
        embedding="model.embed_tokens.weight",
        positions=None,
        final_norm="model.norm",
        rotary=lambda model: model.model.rotary_emb,
    )
    for name in ("llama", "mistral", "qwen2", "qwen3"):
        yield name, llama
    yield (
        "gpt2",
        Family(
            describe=_describe_gpt2,
            layer=_gpt2_layer,
            embedding="transformer.wte.weight",
            positions="transformer.wpe.weight",
            final_norm="transformer.ln_f",
            rotary=lambda model: None,
        ),
    )
    yield (
        "gpt_neox",
        Family(
            describe=_describe_gpt_neox,
            layer=_gpt_neox_layer,
            embedding="gpt_neox.embed_in.weight",
            positions=None,
            final_norm="gpt_neox.final_layer_norm",
            rotary=lambda model: model.gpt_neox.rotary_emb,
        ),
    )


FAMILIES: Mapping[str, Family] = dict(_families())
