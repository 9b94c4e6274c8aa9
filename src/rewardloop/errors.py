"""Every error a user can cause, by kind. Messages say what was given, what was expected, what to do.

The command line turns a RewardLoopError into one line and exit code 2.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager


class RewardLoopError(Exception):
    """Base of all errors that a user can cause or mend."""


class ConfigError(RewardLoopError, ValueError):
    """A recipe, an option or an argument is not usable."""


class DataError(RewardLoopError, ValueError):
    """A feedback file or a record in it is malformed; the message names file and line."""


class ModelError(RewardLoopError, RuntimeError):
    """A model folder cannot be loaded, is refused, or does not fit the request."""


class StoreError(RewardLoopError, OSError):
    """Something could not be written or read back whole (disk full, corrupt checkpoint)."""


class TrainingError(RewardLoopError, RuntimeError):
    """Training had to stop: three non-finite steps in a row, a reward that is NaN."""


class MemoryFullError(RewardLoopError, MemoryError):
    """More memory was asked for than there is."""


@contextmanager
def telling_of_memory() -> Iterator[None]:
    """Whatever within finds the memory full raises MemoryFullError: Python's allocator, torch's, a GPU's."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        full = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
        if isinstance(error, RewardLoopError) or not (full or "can't allocate memory" in str(error)):
            raise
        raise MemoryFullError(
            f"the memory is full{_wanted(str(error))}; take a smaller model, fewer sampling.slots, a shorter "
            "sampling.max_tokens or a smaller optimizer.tokens_per_microbatch, or give back what others hold"
        ) from error


def _wanted(message: str) -> str:
    """How much was asked for, where the allocator says so: torch's of the processor in bytes, a GPU's in GiB."""
    if found := re.search(r"tried to allocate (\d+) bytes", message):
        return f" ({int(found[1]) / 2**30:,.1f} GiB more were asked for)"
    if found := re.search(r"Tried to allocate ([\d.]+ [KMG]iB)", message):
        return f" ({found[1]} more were asked for)"
    return ""
