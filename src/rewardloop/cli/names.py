"""Words of the command line that stand for something else."""

from __future__ import annotations

from typing import Any

from rewardloop.errors import ConfigError
from rewardloop.sandbox.builtin import builtin_model_folder

BUILTIN = "builtin"


def model_source(name: str) -> str:
    """A folder or hub id; `builtin` is the small model of the sandbox."""
    return str(builtin_model_folder()) if name == BUILTIN else name


def known(option: str, value: str, *choices: str) -> Any:
    """`value`, if it is one of `choices`. Raises ConfigError."""
    if value not in choices:
        raise ConfigError(f"{option} is {value!r}; expected {' or '.join(choices)}")
    return value
