"""Linear maps in a layout of their own give what plain ones give, for any number of rows."""

from __future__ import annotations

import pytest
import torch

from rewardloop.rollout.families import Dense
from rewardloop.rollout.projection import PACKED_FROM, Projection

SHAPES = {"small": (24, 20), "large": (300, 256)}


@pytest.mark.parametrize("rows", [1, 7, 32, 200])
@pytest.mark.parametrize("size", SHAPES)
@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_it_is_a_linear_map(rows: int, size: str, biased: bool, dtype: torch.dtype, tolerance: float) -> None:
    assert 24 * 20 < PACKED_FROM <= 300 * 256
    generator = torch.Generator().manual_seed(0)
    outputs, inputs = SHAPES[size]
    weight = torch.randn(outputs, inputs, generator=generator) / inputs**0.5
    bias = torch.randn(outputs, generator=generator) if biased else None
    x = torch.randn(rows, inputs, generator=generator)
    expected = x.double() @ weight.double().T + (0 if bias is None else bias.double())
    y = Projection(Dense(weight, bias), dtype)(x)
    assert y.dtype == dtype
    torch.testing.assert_close(y.double(), expected, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("size", SHAPES)
def test_it_keeps_its_weights_while_the_model_learns(size: str) -> None:
    weight, x = torch.ones(SHAPES[size]), torch.ones(2, SHAPES[size][1])
    projection = Projection(Dense(weight), torch.float32)
    before = projection(x)
    weight.zero_()
    assert torch.equal(projection(x), before)
