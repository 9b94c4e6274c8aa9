"""Log-probabilities of given tokens, a chunk of positions at a time: no [N, V] tensor ever exists.

Of the head's three matrix products (logits, gradient of the hidden states, gradient of the weight), a chunk
needs the first one again in the backward pass, since its logits are not kept. Where the gradient of the loss
with respect to the log-probs is known as soon as a chunk's log-probs are, `backward_through_head` makes all
three while the chunk is at hand, and nothing is computed twice.

In a chunk, logits turn into probabilities in place, block by block in the cache; only products touch memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Literal, overload

import torch
from torch import Tensor

# Logits of a chunk. Every chunk costs a pass over the weight's gradient, so that it must not be small.
CHUNK_BYTES: Final = 64 << 20
# Logits that are in float32 at a time: as much as the cache of a core holds.
BLOCK_ELEMENTS: Final = 512 << 10


def default_chunk(weight_VD: Tensor) -> int:
    """Positions of a chunk of about CHUNK_BYTES of logits."""
    return max(1, CHUNK_BYTES // (len(weight_VD) * weight_VD.element_size()))


@overload
def chunked_logprobs(
    hidden_ND: Tensor,
    weight_VD: Tensor,
    targets_N: Tensor,
    *,
    bias_V: Tensor | None = None,
    temperature: float = 1.0,
    chunk: int | None = None,
    with_entropy: Literal[False] = False,
) -> Tensor: ...


@overload
def chunked_logprobs(
    hidden_ND: Tensor,
    weight_VD: Tensor,
    targets_N: Tensor,
    *,
    bias_V: Tensor | None = None,
    temperature: float = 1.0,
    chunk: int | None = None,
    with_entropy: Literal[True],
) -> tuple[Tensor, Tensor]: ...


def chunked_logprobs(
    hidden_ND: Tensor,
    weight_VD: Tensor,
    targets_N: Tensor,
    *,
    bias_V: Tensor | None = None,
    temperature: float = 1.0,
    chunk: int | None = None,
    with_entropy: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """log softmax((h W^T + b) / temperature)[target] of each position, [N] float32, with gradient.

    Args:
        hidden_ND, weight_VD: of one floating type; products are computed in it, the softmax in float32.
        targets_N: token ids in [0, V).
        temperature: above 0.
        chunk: positions at a time; None = about CHUNK_BYTES of logits.
        with_entropy: also return the entropy of each position, [N], without gradient.
    """
    chunk = chunk or default_chunk(weight_VD)
    logprobs_N, entropy_N = _ChunkedLogprobs.apply(  # type: ignore[no-untyped-call]
        hidden_ND, weight_VD, bias_V, targets_N, temperature, chunk, with_entropy
    )
    return (logprobs_N, entropy_N) if with_entropy else logprobs_N


def backward_through_head(
    hidden_ND: Tensor,
    weight_VD: Tensor,
    targets_N: Tensor,
    gradient: Callable[[Tensor], Tensor],
    weight_grad_VD: Tensor | None,
    *,
    bias_V: Tensor | None = None,
    bias_grad_V: Tensor | None = None,
    temperature: float = 1.0,
    chunk: int | None = None,
) -> Tensor:
    """Gradient of a loss with respect to the hidden states, [N, D], logits computed once.

    The loss may be any function of all N log-probs: `gradient` is given them and returns dL/dlogprobs, [N].
    Where N is larger than a chunk, the logits of the positions are computed twice instead. The gradients of
    the head are *added* to `weight_grad_VD` and `bias_grad_V`, float32; None for what does not learn.
    """
    chunk = chunk or default_chunk(weight_VD)
    head = (weight_VD, bias_V, temperature)
    grads = (weight_grad_VD, bias_grad_V)
    if len(hidden_ND) <= chunk:
        probs_NV, logprobs_N, _ = _probabilities(hidden_ND, targets_N, head)
        return _add_gradients(probs_NV, logprobs_N, gradient(logprobs_N), hidden_ND, targets_N, head, grads)
    with torch.no_grad():
        logprobs_N = chunked_logprobs(
            hidden_ND, weight_VD, targets_N, bias_V=bias_V, temperature=temperature, chunk=chunk
        )
    return _gradients_by_chunks(hidden_ND, targets_N, gradient(logprobs_N), head, grads, chunk)


Head = tuple[Tensor, Tensor | None, float]
HeadGrads = tuple[Tensor | None, Tensor | None]


class _ChunkedLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_ND: Tensor,
        weight_VD: Tensor,
        bias_V: Tensor | None,
        targets_N: Tensor,
        temperature: float,
        chunk: int,
        with_entropy: bool,
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(hidden_ND, weight_VD, bias_V, targets_N)
        ctx.temperature, ctx.chunk = temperature, chunk
        logprobs, entropies = [], []
        for hidden_nD, targets_n in zip(torch.split(hidden_ND, chunk), torch.split(targets_N, chunk), strict=True):
            head = (weight_VD, bias_V, temperature)
            _, logprobs_n, entropy_n = _probabilities(hidden_nD, targets_n, head, with_entropy)
            logprobs.append(logprobs_n)
            entropies.append(entropy_n)
        entropy_N = torch.cat(entropies)
        ctx.mark_non_differentiable(entropy_N)
        return torch.cat(logprobs), entropy_N

    @staticmethod
    def backward(ctx: Any, grad_N: Tensor, *_: Tensor | None) -> tuple[Tensor | None, ...]:
        hidden_ND, weight_VD, bias_V, targets_N = ctx.saved_tensors
        weight_grad_VD = torch.zeros_like(weight_VD, dtype=torch.float32) if ctx.needs_input_grad[1] else None
        bias_grad_V = (
            torch.zeros_like(bias_V, dtype=torch.float32) if bias_V is not None and ctx.needs_input_grad[2] else None
        )
        head, grads = (weight_VD, bias_V, ctx.temperature), (weight_grad_VD, bias_grad_V)
        hidden_grad_ND = _gradients_by_chunks(hidden_ND, targets_N, grad_N, head, grads, ctx.chunk)
        return (
            hidden_grad_ND.to(hidden_ND.dtype),
            None if weight_grad_VD is None else weight_grad_VD.to(weight_VD.dtype),
            None if bias_grad_V is None else bias_grad_V.to(bias_V.dtype),
            None,
            None,
            None,
            None,
        )


def _gradients_by_chunks(
    hidden_ND: Tensor, targets_N: Tensor, grad_N: Tensor, head: Head, grads: HeadGrads, chunk: int
) -> Tensor:
    parts = []
    pieces = zip(torch.split(hidden_ND, chunk), torch.split(targets_N, chunk), torch.split(grad_N, chunk), strict=True)
    for hidden_nD, targets_n, grad_n in pieces:
        probs_nV, logprobs_n, _ = _probabilities(hidden_nD, targets_n, head)
        parts.append(_add_gradients(probs_nV, logprobs_n, grad_n, hidden_nD, targets_n, head, grads))
    return torch.cat(parts)


def _probabilities(
    hidden_nD: Tensor, targets_n: Tensor, head: Head, with_entropy: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Of one chunk: probabilities [n, V] in the type of the hidden states, log-probs of the targets [n] and
    entropies [n] (empty unless asked for) in float32; float64 stays.
    """
    logits_nV = hidden_nD @ head[0].T
    rows = max(1, BLOCK_ELEMENTS // logits_nV.shape[1])
    blocks = zip(torch.split(logits_nV, rows), torch.split(targets_n, rows), strict=True)
    found = [_soften(logits_bV, targets_b, head, with_entropy) for logits_bV, targets_b in blocks]
    logprobs, entropies = zip(*found, strict=True)
    return logits_nV, torch.cat(logprobs), torch.cat(entropies)


def _soften(logits_bV: Tensor, targets_b: Tensor, head: Head, with_entropy: bool) -> tuple[Tensor, Tensor]:
    """Turn logits into probabilities in place; returns log-probs of the targets, and entropies."""
    _, bias_V, temperature = head
    exact_bV = logits_bV.to(torch.promote_types(logits_bV.dtype, torch.float32))
    if bias_V is not None:
        exact_bV = exact_bV + bias_V
    if temperature != 1.0:
        exact_bV = exact_bV / temperature
    probs_bV = torch.softmax(exact_bV, -1)
    # The greatest probability is never below 1/V: its logarithm tells log Z without another pass of exp.
    log_z_b = exact_bV.amax(-1) - probs_bV.amax(-1).log()
    logprobs_b = exact_bV.gather(-1, targets_b[:, None])[:, 0] - log_z_b
    logits_bV.copy_(probs_bV)
    entropy_b = torch.special.entr(probs_bV).sum(-1) if with_entropy else logprobs_b[:0]
    return logprobs_b, entropy_b


def _add_gradients(
    probs_nV: Tensor,
    logprobs_n: Tensor,
    grad_n: Tensor,
    hidden_nD: Tensor,
    targets_n: Tensor,
    head: Head,
    grads: HeadGrads,
) -> Tensor:
    """dL/dlogits = c (onehot - p) / temperature, times the weight, and times the hidden states.

    The target's column is taken out of p and goes with the one-hot part, exactly: in bfloat16 a p near 1
    would be rounded to 1, and 1 - p to 0.
    """
    weight_VD, _, temperature = head
    weight_grad_VD, bias_grad_V = grads
    dtype = hidden_nD.dtype
    scale_n1 = (grad_n / temperature)[:, None]
    own_n1 = -torch.expm1(logprobs_n)[:, None] * scale_n1  # c (1 - p_target)
    rows_n = torch.arange(len(targets_n), device=targets_n.device)
    others_nV = probs_nV.index_put_((rows_n, targets_n), probs_nV.new_zeros(()))
    if weight_grad_VD is not None:
        _subtract_product(weight_grad_VD, others_nV.T, (hidden_nD * scale_n1).to(dtype))
        weight_grad_VD.index_add_(0, targets_n, (hidden_nD * own_n1).to(weight_grad_VD.dtype))
    if bias_grad_V is not None:
        bias_grad_V -= scale_n1[:, 0].to(dtype) @ others_nV
        bias_grad_V.index_add_(0, targets_n, own_n1[:, 0].to(bias_grad_V.dtype))
    return own_n1 * weight_VD[targets_n] - scale_n1 * (others_nV @ weight_VD)


def _subtract_product(total_VD: Tensor, left_Vn: Tensor, right_nD: Tensor) -> None:
    """total -= left @ right. Of another type, block by block: no copy of the product in the type of the total."""
    if total_VD.dtype == right_nD.dtype:
        total_VD.addmm_(left_Vn, right_nD, alpha=-1.0)
        return
    part_VD = left_Vn @ right_nD
    rows = max(1, BLOCK_ELEMENTS // total_VD.shape[1])
    for total_bD, part_bD in zip(torch.split(total_VD, rows), torch.split(part_VD, rows), strict=True):
        total_bD -= part_bD
