"""What numerical libraries read of the environment when they are imported."""

from __future__ import annotations

from typing import Final

# oneDNN, and PyTorch's layer above it, each keep a kernel for every shape of a matrix product, a thousand of them
# unless told otherwise. With texts of all lengths that is up to a gigabyte, and nothing is faster for it.
FEW_KERNELS: Final = {"LRU_CACHE_CAPACITY": "32", "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "128"}
