"""The chunked head against a whole log_softmax, its gradients against autograd, and the memory it takes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from rewardloop.functional.head import CHUNK_BYTES, backward_through_head, chunked_logprobs, default_chunk

N, V, D = 23, 41, 7


class LargestTensor(TorchDispatchMode):
    """Remembers the most elements that any operation's result had."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(tensor, Tensor):
                self.elements = max(self.elements, tensor.numel())
        return result


def make(dtype: torch.dtype = torch.float64, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    hidden_ND = torch.randn(N, D, generator=generator, dtype=torch.float64)
    weight_VD = torch.randn(V, D, generator=generator, dtype=torch.float64)
    bias_V = torch.randn(V, generator=generator, dtype=torch.float64)
    targets_N = torch.randint(V, (N,), generator=generator)
    return hidden_ND.to(dtype), weight_VD.to(dtype), bias_V.to(dtype), targets_N


def whole(hidden_ND: Tensor, weight_VD: Tensor, bias_V: Tensor, targets_N: Tensor, temperature: float) -> Tensor:
    logits_NV = torch.nn.functional.linear(hidden_ND, weight_VD, bias_V) / temperature
    return -torch.nn.functional.cross_entropy(logits_NV, targets_N, reduction="none")


@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize("chunk", [1, 5, N, 1000, None])
def test_values_and_gradients_are_those_of_the_whole_softmax(chunk: int | None, temperature: float) -> None:
    hidden_ND, weight_VD, bias_V, targets_N = make()
    coefficients_N = torch.linspace(-2, 3, N, dtype=torch.float64)
    leaves = [tensor.requires_grad_() for tensor in (hidden_ND, weight_VD, bias_V)]
    expected_N = whole(hidden_ND, weight_VD, bias_V, targets_N, temperature)
    expected = torch.autograd.grad((expected_N.exp() * coefficients_N).sum(), leaves)
    given_N = chunked_logprobs(hidden_ND, weight_VD, targets_N, bias_V=bias_V, temperature=temperature, chunk=chunk)
    given = torch.autograd.grad((given_N.exp() * coefficients_N).sum(), leaves)
    torch.testing.assert_close(given_N, expected_N, rtol=0, atol=1e-12)
    for ours, theirs in zip(given, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-7)  # the weight's gradient adds up in float32


def test_gradient_agrees_with_finite_differences() -> None:
    hidden_ND, weight_VD, _, targets_N = make()
    direction_ND = torch.randn(N, D, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def total(step: float) -> Tensor:
        return chunked_logprobs(hidden_ND + step * direction_ND, weight_VD, targets_N, chunk=4).sum()

    hidden_ND.requires_grad_()
    total(0.0).backward()
    slope = float(total(1e-5).detach() - total(-1e-5).detach()) / 2e-5
    assert hidden_ND.grad is not None
    assert float((hidden_ND.grad * direction_ND).sum()) == pytest.approx(slope, rel=1e-7)


def test_entropy_is_that_of_the_distribution_and_carries_no_gradient() -> None:
    hidden_ND, weight_VD, bias_V, targets_N = make()
    hidden_ND.requires_grad_()
    _, entropy_N = chunked_logprobs(
        hidden_ND, weight_VD, targets_N, bias_V=bias_V, temperature=0.7, chunk=4, with_entropy=True
    )
    logits_NV = (hidden_ND @ weight_VD.T + bias_V) / 0.7
    expected_N = torch.distributions.Categorical(logits=logits_NV).entropy()
    torch.testing.assert_close(entropy_N, expected_N, rtol=0, atol=1e-12)
    assert not entropy_N.requires_grad


def test_extreme_logits_stay_finite_and_exact() -> None:
    """Probabilities of 1 and of exp(-300): log-prob and gradient as in exact arithmetic."""
    hidden_ND = torch.tensor([[1.0], [1.0]], requires_grad=True)
    weight_VD = torch.tensor([[300.0], [0.0], [-300.0]])
    logprobs_N = chunked_logprobs(hidden_ND, weight_VD, torch.tensor([0, 2]))
    assert logprobs_N.tolist() == [0.0, -600.0]
    logprobs_N.sum().backward()
    # (onehot - p) W: 300 - 300 for the certain token, -300 - 300 for the impossible one
    assert hidden_ND.grad is not None
    assert hidden_ND.grad.tolist() == [[0.0], [-600.0]]


@pytest.mark.parametrize("chunk", [5, 1000])
def test_fused_gradients_equal_those_of_autograd(chunk: int) -> None:
    """The loss mixes all log-probs, as a ratio of the sequence does; gradients are added to what is there."""
    hidden_ND, weight_VD, bias_V, targets_N = make()

    def loss(logprobs_N: Tensor) -> Tensor:
        return logprobs_N.mean().exp() * (logprobs_N * torch.linspace(-1, 1, N, dtype=torch.float64)).sum()

    def gradient(logprobs_N: Tensor) -> Tensor:
        leaf_N = logprobs_N.detach().requires_grad_()
        with torch.enable_grad():
            return torch.autograd.grad(loss(leaf_N), leaf_N)[0]

    weight_grad_VD, bias_grad_V = torch.ones(V, D, dtype=torch.float64), torch.ones(V, dtype=torch.float64)
    hidden_grad_ND = backward_through_head(
        hidden_ND,
        weight_VD,
        targets_N,
        gradient,
        weight_grad_VD,
        bias_V=bias_V,
        bias_grad_V=bias_grad_V,
        temperature=0.8,
        chunk=chunk,
    )
    leaves = [tensor.requires_grad_() for tensor in (hidden_ND, weight_VD, bias_V)]
    expected = torch.autograd.grad(loss(whole(hidden_ND, weight_VD, bias_V, targets_N, 0.8)), leaves)
    given = (hidden_grad_ND, weight_grad_VD - 1, bias_grad_V - 1)
    for ours, theirs in zip(given, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


def test_nothing_is_written_for_a_head_that_does_not_learn() -> None:
    hidden_ND, weight_VD, _, targets_N = make()
    learning, frozen = (
        backward_through_head(hidden_ND, weight_VD, targets_N, torch.ones_like, grad_VD)
        for grad_VD in (torch.zeros(V, D, dtype=torch.float64), None)
    )
    assert torch.equal(learning, frozen)


@pytest.mark.parametrize("peak", [0.0, 4.0])
def test_bfloat16_is_near_float32(peak: float) -> None:
    """Also where the policy is nearly certain: 1 - p must not be lost to rounding.

    The reference computes in float64 on the same rounded inputs, so that only our own rounding is seen.
    """
    hidden_ND, weight_VD, _, targets_N = make(torch.bfloat16)
    hidden_ND += (peak * torch.nn.functional.normalize(weight_VD[targets_N].float(), dim=-1)).bfloat16()
    exact_ND, exact_VD = hidden_ND.double().requires_grad_(), weight_VD.double().requires_grad_()
    expected_N = whole(exact_ND, exact_VD, torch.zeros(V, dtype=torch.float64), targets_N, 1.0)
    expected_N.sum().backward()
    weight_grad_VD = torch.zeros(V, D)
    given_N: list[Tensor] = []

    def gradient(logprobs_N: Tensor) -> Tensor:
        given_N.append(logprobs_N)
        return torch.ones_like(logprobs_N)

    hidden_grad_ND = backward_through_head(hidden_ND, weight_VD, targets_N, gradient, weight_grad_VD)
    assert exact_ND.grad is not None
    assert exact_VD.grad is not None
    assert float((given_N[0] - expected_N.detach()).abs().max()) < 0.05
    for ours, theirs in ((hidden_grad_ND, exact_ND.grad), (weight_grad_VD, exact_VD.grad)):
        assert float((ours - theirs).norm() / theirs.norm()) < 0.01


@pytest.mark.parametrize("fused", [False, True])
def test_no_tensor_is_larger_than_a_chunk_of_logits(fused: bool) -> None:
    """512 positions of 500 tokens in chunks of 64: 256,000 logits at once would be seen."""
    generator = torch.Generator().manual_seed(0)
    hidden_ND = torch.randn(512, 4, generator=generator).requires_grad_()
    weight_VD = torch.randn(500, 4, generator=generator).requires_grad_()
    targets_N = torch.randint(500, (512,), generator=generator)

    def run_fused() -> None:
        grad_VD = torch.zeros(500, 4)
        backward_through_head(hidden_ND.detach(), weight_VD.detach(), targets_N, torch.ones_like, grad_VD, chunk=64)

    def run_plain() -> None:
        chunked_logprobs(hidden_ND, weight_VD, targets_N, chunk=64).sum().backward()

    run: Callable[[], None] = run_fused if fused else run_plain
    with LargestTensor() as largest:
        run()
    assert largest.elements == 64 * 500


def test_default_chunk_fills_its_budget() -> None:
    weight_VD = torch.empty(32_000, 2, dtype=torch.bfloat16)
    positions = default_chunk(weight_VD)
    assert CHUNK_BYTES / 2 < positions * 32_000 * 2 <= CHUNK_BYTES
    assert default_chunk(torch.empty(CHUNK_BYTES, 0)) == 1
