"""`rewardloop doctor`: what this machine has and what will be used of it."""

from __future__ import annotations

import platform
import shutil
from importlib.metadata import version
from pathlib import Path

import psutil
import torch
from rich.console import Console
from rich.table import Table

from rewardloop import __version__
from rewardloop.errors import RewardLoopError
from rewardloop.models.language_model import load_language_model
from rewardloop.rollout.kernels import find_compiler
from rewardloop.sandbox.builtin import builtin_model_folder


def doctor(console: Console) -> None:
    """Print one line per fact; the last ones are checks that say ok or what to do."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_row("rewardloop", __version__)
    table.add_row("Python", platform.python_version())
    for package in ("torch", "transformers", "tokenizers", "safetensors", "numpy"):
        table.add_row(package, version(package))
    table.add_row("processor", f"{psutil.cpu_count(logical=True)} threads, bfloat16 {_bfloat16()}")
    table.add_row(
        "memory",
        f"{psutil.virtual_memory().available / 2**30:.1f} of {psutil.virtual_memory().total / 2**30:.1f} GiB free",
    )
    table.add_row("disk", f"{shutil.disk_usage(Path.cwd()).free / 2**30:.1f} GiB free here")
    table.add_row(
        "accelerator", torch.cuda.get_device_name() if torch.cuda.is_available() else "none; the processor will do"
    )
    compiler = find_compiler()
    table.add_row(
        "C++ compiler", f"{compiler}, for sampling.compiled" if compiler else "none; sampling.compiled stays off"
    )
    table.add_row("built-in model", _built_in())
    console.print(table)


def _bfloat16() -> str:
    from rewardloop.hardware import has_fast_bfloat16

    return "in hardware" if has_fast_bfloat16() else "not in hardware; float32 is used"


def _built_in() -> str:
    try:
        policy = load_language_model(builtin_model_folder())
    except RewardLoopError as error:
        return f"[red]broken[/]: {error}"
    parameters = sum(p.numel() for p in policy.model.parameters())
    return f"ok, {parameters / 1e6:.2f}M parameters"
