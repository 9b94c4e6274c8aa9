"""Linear maps laid out for thin batches of rows, which is what decoding multiplies."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from rewardloop.hardware import packs_bfloat16
from rewardloop.rollout.families import Dense

PACKED_FROM = 2**16  # weights: below, oneDNN's overhead of each call outweighs the layout, in float32
ROWS = 32  # the batch that the layout is chosen for; others work as well


class Projection:
    """x_NI -> x_NI weight^T + bias in a chosen precision; holds copies of the weights.

    On a CPU a large weight is reordered once for oneDNN: up to twice the speed of the plain layout at 32 rows.
    """

    __slots__ = ("_bias_O", "_packed", "_weight_OI", "dtype")

    def __init__(self, dense: Dense, dtype: torch.dtype) -> None:
        self.dtype = dtype
        on_cpu = dense.weight_OI.device.type == "cpu"
        pays = packs_bfloat16() if dtype == torch.bfloat16 else dense.weight_OI.numel() >= PACKED_FROM
        self._packed = on_cpu and pays and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        weight_OI = dense.weight_OI.detach().to(dtype, copy=True).contiguous()
        if self._packed:
            weight_OI = torch.ops.mkldnn._reorder_linear_weight(weight_OI, ROWS)
        self._weight_OI = weight_OI
        self._bias_O = None if dense.bias_O is None else dense.bias_O.detach().to(dtype, copy=True)

    def __call__(self, x_NI: Tensor) -> Tensor:
        x_NI = x_NI.to(self.dtype)
        if self._packed:
            y_NO: Tensor = torch.ops.mkldnn._linear_pointwise(x_NI, self._weight_OI, self._bias_O, "none", [], "")
            return y_NO
        return F.linear(x_NI, self._weight_OI, self._bias_O)
