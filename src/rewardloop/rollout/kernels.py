"""What a decoding step does between its matrix products, in C++: compiled for this processor when first asked for.

PyTorch runs some fifteen small operators a block there, each a pass over memory and a wait for all threads. The
source (`kernels.cpp`) needs a C++ compiler and nothing else; what it gives is kept in the user's cache folder, by
a digest of source, compiler, and processor.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Final

from rewardloop.errors import ConfigError
from rewardloop.files import written_whole

SOURCE: Final = Path(__file__).with_name("kernels.cpp")
COMPILERS: Final = ("c++", "g++", "clang++")
PLAIN: Final = ("-O3", "-std=c++17", "-fPIC", "-shared", "-fno-math-errno", "-fno-trapping-math")
# the first that the compiler takes: Apple's has no OpenMP of its own
EXTRA: Final = (("-march=native", "-fopenmp"), ("-mcpu=native", "-fopenmp"), ("-mcpu=native",), ())
ACTIVATIONS: Final = {  # transformers' names, in the order of the source's enum
    "silu": 0,
    "swish": 0,
    "gelu": 1,
    "gelu_new": 2,
    "gelu_pytorch_tanh": 2,
    "gelu_fast": 2,
    "relu": 3,
}

_PLACE, _SIZE, _FLOAT, _INT = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float, ctypes.c_int
_NORMALIZE = [_PLACE, _PLACE, _PLACE, _PLACE, _PLACE, _SIZE, _SIZE, _FLOAT, _INT, _INT]
_ATTEND = [*[_PLACE] * 7, _FLOAT, *[_SIZE] * 7, _INT]
_ACTIVATE = [_PLACE, _PLACE, _SIZE, _SIZE, _INT, _INT, _INT]
_DRAW = [*[_PLACE] * 5, _SIZE, _SIZE, _INT]
_KINDS: Final = {"normalize": _NORMALIZE, "finish": _NORMALIZE, "attend": _ATTEND, "activate": _ACTIVATE}
_ARGUMENTS: Final = {f"{name}_{kind}": given for name, given in _KINDS.items() for kind in ("f32", "bf16")} | {
    "draw": _DRAW
}


@cache
def load_kernels() -> ctypes.CDLL:
    """The compiled functions. Raises ConfigError where there is no compiler, or it fails."""
    compiler = find_compiler()
    if compiler is None:
        raise ConfigError(
            f"compiled decoding needs a C++ compiler, and none of {', '.join(_candidates())} was found; install one "
            "(Debian: apt-get install g++; Mac: xcode-select --install), name one in CXX, or leave it off"
        )
    library = _cache_folder() / f"kernels-{_digest(compiler)}.so"
    if not library.exists():
        _compile(compiler, library)
    kernels = ctypes.CDLL(str(library))
    for name, arguments in _ARGUMENTS.items():
        function = getattr(kernels, name)
        function.argtypes, function.restype = arguments, None
    return kernels


def find_compiler() -> str | None:
    """CXX, or the first C++ compiler on the path."""
    return next(filter(None, map(shutil.which, _candidates())), None)


def _candidates() -> tuple[str, ...]:
    named = os.environ.get("CXX")
    return (named,) if named else COMPILERS


def _compile(compiler: str, library: Path) -> None:
    with written_whole(library) as temporary:
        for extra in EXTRA:
            command = [compiler, *PLAIN, *extra, "-o", str(temporary), str(SOURCE)]
            ended = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
            if ended.returncode == 0:
                return
        last = (ended.stderr.strip().splitlines() or ["no message"])[-1]
        raise ConfigError(f"{compiler} could not compile the decoding kernels ({last}); leave compiled decoding off")


def _cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rewardloop"


def _digest(compiler: str) -> str:
    """Of everything that the result depends on; a home folder may be shared between unlike processors."""
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=False).stdout  # noqa: S603
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    processor = [line for line in lines if line.startswith(("flags", "Features", "model name"))][:2]
    parts = [SOURCE.read_text(encoding="utf-8"), version, platform.machine(), platform.processor(), *processor]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
