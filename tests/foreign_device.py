"""A device beside the processor that every machine with a C++ compiler has: what fails there would fail on a GPU.

`pytest --device foreign` sends there every model that is loaded. Slow, and for tests alone.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import ModuleType

import torch
from torch.utils import cpp_extension

from rewardloop.files import written_whole
from rewardloop.rollout.kernels import find_compiler

NAME = "foreign"
SOURCE = Path(__file__).with_name("foreign_device.cpp")


def install(folder: Path) -> None:
    """Make "foreign" a device of this process; what is compiled for it is kept in `folder`."""
    torch.utils.rename_privateuse1_backend(NAME)
    torch._register_device_module(NAME, _Module(NAME))  # type: ignore[no-untyped-call]
    torch.ops.load_library(_compiled(folder))
    torch.utils.generate_methods_for_privateuse1_backend(for_storage=True)
    torch.__future__.set_swap_module_params_on_conversion(True)  # tied weights stay tied, as on their way to a GPU


class _Module(ModuleType):
    """What PyTorch asks of a device's module."""

    @staticmethod
    def is_available() -> bool:
        return True

    @staticmethod
    def is_initialized() -> bool:
        return True

    @staticmethod
    def device_count() -> int:
        return 1

    @staticmethod
    def current_device() -> int:
        return 0

    @staticmethod
    def manual_seed_all(_: int) -> None:
        """It draws nothing."""

    @staticmethod
    def _is_in_bad_fork() -> bool:
        return False

    @staticmethod
    def get_amp_supported_dtype() -> list[torch.dtype]:
        return [torch.bfloat16]


def _compiled(folder: Path) -> Path:
    library = folder / f"foreign-device-{torch.__version__}-{SOURCE.stat().st_mtime_ns}.so"
    if library.exists():
        return library
    compiler = find_compiler()
    assert compiler is not None
    includes = [f"-I{path}" for path in cpp_extension.include_paths()]
    abi = f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}"
    libraries = [*(f"-L{path}" for path in cpp_extension.library_paths()), "-lc10", "-ltorch_cpu"]
    folder.mkdir(parents=True, exist_ok=True)
    with written_whole(library) as temporary:
        command = [compiler, "-std=c++20", "-O1", "-fPIC", "-shared", "-w", abi, *includes, "-o", str(temporary)]
        subprocess.run([*command, str(SOURCE), *libraries], check=True)
    return library
