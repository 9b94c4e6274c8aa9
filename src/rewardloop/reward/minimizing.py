"""The minimum of a smooth function of a few hundred numbers."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

MOST_STEPS = 300


def minimize(objective: Callable[[Tensor], Tensor], start: Tensor) -> Tensor:
    """The minimum of a smooth function of one vector by L-BFGS from `start` (float64, left as it is)."""
    free: Tensor = start.clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [free],
        max_iter=MOST_STEPS,
        tolerance_grad=1e-5,
        tolerance_change=1e-10,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = objective(free)
        torch.autograd.backward(value)
        return value

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return free.detach()
