"""The decoder with a compiled step: matrix products by oneDNN, all between them by our own kernels.

A row attends to as many positions as it has, where the plain step takes all rows to the longest.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from rewardloop.errors import ConfigError
from rewardloop.rollout.decoder import Decoder, Layer
from rewardloop.rollout.families import Norm
from rewardloop.rollout.kernels import ACTIVATIONS, load_kernels


class CompiledDecoder(Decoder):
    """A decoder whose `states` are computed by kernels compiled for this processor.

    Raises ConfigError off the CPU, for an activation that the kernels do not have, and where nothing can be compiled.
    """

    def __init__(self, model: Any, dtype: torch.dtype, length: int) -> None:
        super().__init__(model, dtype, length)
        if self.device.type != "cpu":
            raise ConfigError(f"compiled decoding is for the CPU, and the model is on {self.device}; leave it off")
        if self.shape.activation not in ACTIVATIONS:
            raise ConfigError(
                f"compiled decoding knows the activations {', '.join(ACTIVATIONS)}, and the model has "
                f"{self.shape.activation}; leave it off"
            )
        kernels, kind = load_kernels(), "bf16" if dtype == torch.bfloat16 else "f32"
        self._run_normalize, self._run_finish = (getattr(kernels, f"{name}_{kind}") for name in ("normalize", "finish"))
        self._run_attend, self._run_activate = (getattr(kernels, f"{name}_{kind}") for name in ("attend", "activate"))
        self._angles = None if self._rotary is None else torch.view_as_real(self._rotary).contiguous()

    def states(self, cache: list[Tensor], tokens_B: Tensor, positions_B: Tensor, longest: int) -> Tensor:
        """As the plain decoder's."""
        stream_BD = F.embedding(tokens_B, self._embedding_VD)
        if self._positions_SD is not None:
            stream_BD += F.embedding(positions_B, self._positions_SD)
        parallel = self.shape.parallel
        added_BD: Tensor | None = None
        for layer, kv in zip(self._layers, cache, strict=True):
            qkv = layer.qkv(self._normalized(stream_BD, added_BD, layer.attention_norm))
            mixed_BD = self._mixed(qkv, kv, positions_B, layer.query_norm, layer.key_norm)
            if parallel:  # both branches read the stream as it was before either was added
                up = layer.up(self._normalized(stream_BD, None, layer.feed_norm))
                added_BD = layer.out(mixed_BD) + layer.down(self._activated(up))
            else:
                up = layer.up(self._normalized(stream_BD, layer.out(mixed_BD), layer.feed_norm))
                added_BD = layer.down(self._activated(up))
        return self._normalized(stream_BD, added_BD, self._final_norm, last=True)

    def _finish(self, layer: Layer, hidden_ND: Tensor, mixed_ND: Tensor) -> Tensor:
        """As the plain decoder's, for prompts; what comes in is changed in place."""
        if self.shape.parallel:
            return super()._finish(layer, hidden_ND, mixed_ND)
        up = layer.up(self._normalized(hidden_ND, layer.out(mixed_ND), layer.feed_norm))
        return hidden_ND.add_(layer.down(self._activated(up)))

    def _normalized(self, stream_BD: Tensor, added_BD: Tensor | None, norm: Norm, *, last: bool = False) -> Tensor:
        """The norm of the stream after `added_BD` was added to it, in place; float32 if it is the last one."""
        rows, width = stream_BD.shape
        out_BD = torch.empty(rows, width, dtype=torch.float32 if last else self.dtype)
        run = self._run_finish if last else self._run_normalize
        run(
            out_BD.data_ptr(),
            stream_BD.data_ptr(),
            _place(added_BD),
            norm.weight_D.data_ptr(),
            _place(norm.bias_D),
            rows,
            width,
            self.shape.norm_eps,
            self.shape.norm == "rms",
            torch.get_num_threads(),
        )
        return out_BD

    def _mixed(
        self, qkv: Tensor, kv: Tensor, positions_B: Tensor, query_norm: Norm | None, key_norm: Norm | None
    ) -> Tensor:
        """Attention of the newest position of each row, whose key and value are written to the cache."""
        shape, rows = self.shape, len(qkv)
        mixed_BD = torch.empty(rows, shape.heads * shape.head_dim, dtype=self.dtype)
        self._run_attend(
            mixed_BD.data_ptr(),
            qkv.data_ptr(),
            kv.data_ptr(),
            positions_B.data_ptr(),
            _place(self._angles),
            _place(query_norm.weight_D if query_norm else None),
            _place(key_norm.weight_D if key_norm else None),
            shape.norm_eps,
            rows,
            kv.shape[1],
            shape.heads,
            shape.kv_heads,
            shape.head_dim,
            shape.rotary_dim,
            kv.shape[3],
            torch.get_num_threads(),
        )
        return mixed_BD

    def _activated(self, up: Tensor) -> Tensor:
        rows, width = len(up), up.shape[1] // (2 if self.shape.gated else 1)
        out = torch.empty(rows, width, dtype=self.dtype)
        kind = ACTIVATIONS[self.shape.activation]
        self._run_activate(out.data_ptr(), up.data_ptr(), rows, width, kind, self.shape.gated, torch.get_num_threads())
        return out


def draw_tokens_compiled(logits_BV: Tensor, temperature_B: np.ndarray, uniform_B: np.ndarray) -> tuple[Tensor, Tensor]:
    """As `draw_tokens`, on the CPU: one pass for the largest logit, one for the sums, and nothing written."""
    rows, size = logits_BV.shape
    logits_BV = logits_BV.contiguous()
    token_B, logprob_B = torch.empty(rows, dtype=torch.int64), torch.empty(rows)
    temperatures, uniforms = (np.ascontiguousarray(given, np.float64) for given in (temperature_B, uniform_B))
    load_kernels().draw(
        token_B.data_ptr(),
        logprob_B.data_ptr(),
        logits_BV.data_ptr(),
        temperatures.ctypes.data,
        uniforms.ctypes.data,
        rows,
        size,
        torch.get_num_threads(),
    )
    return token_B, logprob_B


def _place(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()
