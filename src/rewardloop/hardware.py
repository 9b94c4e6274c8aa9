"""What this machine has, and what of it is used: compute threads, device, bfloat16, memory of the allocator."""

from __future__ import annotations

import ctypes
import os
import sys
from contextlib import AbstractContextManager
from typing import Any, Final, Literal, cast, get_args

import torch

from rewardloop.errors import ConfigError

Precision = Literal["auto", "float32", "bfloat16"]

# <malloc.h>; see keep_large_blocks
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_KEPT_BYTES: Final = (1 << 31) - 1  # the most that mallopt takes


def set_up_threads(threads: int = 0) -> None:
    """Use `threads` compute threads (0 = as many as this process may run on); keep freed blocks for reuse."""
    if threads < 0:
        raise ConfigError(f"threads: given {threads}; expected 0 (one for each core) or more")
    torch.set_num_threads(threads or available_cores())
    keep_large_blocks()


def available_cores() -> int:
    """Cores that this process may run on: fewer than the machine has under a CPU affinity."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def keep_large_blocks() -> bool:
    """Tell glibc to reuse large blocks; returns whether it will. Does nothing on other systems.

    As it comes, every tensor above 32 MiB goes back to the kernel when it is freed and is faulted in anew,
    page by page, at the next allocation.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is None:
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, _KEPT_BYTES)) and bool(mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES))


def return_free_memory() -> bool:
    """Give the kernel back what glibc holds and nobody uses; returns whether it could. Does nothing on other systems.

    The price of `keep_large_blocks`: blocks of many sizes leave holes, and a process that works for days grows around
    them. Call it now and then, where a moment of page faults does no harm.
    """
    if not sys.platform.startswith("linux"):
        return False
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # musl has none
    return trim is not None and bool(trim(0))


def best_device() -> str:
    """Where models go that nobody sent elsewhere: a CUDA device where there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def has_fast_bfloat16(device: torch.device | str = "cpu") -> bool:
    """Whether matrix products in bfloat16 run in hardware there: AVX-512 BF16, AMX, or a GPU since Ampere."""
    kind = torch.device(device).type
    if kind == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if kind != "cpu":
        return False
    cpu = cast(Any, torch.cpu)
    return bool(cpu._is_avx512_bf16_supported() or cpu._is_amx_tile_supported())


def packs_bfloat16() -> bool:
    """Whether oneDNN can lay out bfloat16 weights for this processor; it refuses those without AVX-512."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def compute_dtype(precision: Precision, device: torch.device | str) -> torch.dtype:
    """The type that matrix products are computed in; "auto" takes bfloat16 where hardware has it.

    Raises ConfigError for another word.
    """
    if precision not in get_args(Precision):
        raise ConfigError(f"precision: given {precision!r}; known: {', '.join(get_args(Precision))}")
    if precision == "bfloat16" or (precision == "auto" and has_fast_bfloat16(device)):
        return torch.bfloat16
    return torch.float32


def computing_in(dtype: torch.dtype, device: torch.device | str) -> AbstractContextManager[Any]:
    """Matrix products in `dtype` over float32 weights (autocast); sums, norms and the stream stay float32.

    Weights are converted once for as long as the outermost of these contexts is open; float32 within it
    switches the conversion off for a while.
    """
    return torch.autocast(torch.device(device).type, dtype=dtype, enabled=dtype != torch.float32)
