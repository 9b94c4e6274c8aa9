"""The built-in model: a plain Hugging Face folder inside the package, made by `rewardloop.sandbox.pretrain`."""

from __future__ import annotations

from pathlib import Path


def builtin_model_folder() -> Path:
    """The folder of the causal LM that lives in the town of `build_world(0)`."""
    return Path(__file__).parent / "builtin"
