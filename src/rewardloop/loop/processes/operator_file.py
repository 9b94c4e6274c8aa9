"""How programs on this machine find, and may steer, a place that runs: DATA/operator.json, {"url", "token"}.

It is there while a run is, for the eyes of the data directory's owner alone. After a run that was killed it may be
left; nobody listens at its address then.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rewardloop.errors import StoreError

NAME: Final = "operator.json"


@dataclass(frozen=True, slots=True)
class Operator:
    """Where the gateway is, and the secret that it lets operators in by."""

    url: str
    token: str


@contextmanager
def operator_file(data: Path, url: str) -> Iterator[str]:
    """The file, for as long as the context lasts; gives the token. Raises StoreError where it cannot be written."""
    token, path = secrets.token_urlsafe(32), data / NAME
    waiting = data / f".{NAME}.{os.getpid()}.tmp"
    try:
        waiting.unlink(missing_ok=True)
        descriptor = os.open(waiting, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)  # never readable by others
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump({"url": url, "token": token}, file)
        waiting.replace(path)
    except OSError as error:
        raise StoreError(f"could not write {path}: {error.strerror or error}") from error
    try:
        yield token
    finally:
        path.unlink(missing_ok=True)


def read_operator(data: Path) -> Operator | None:
    """What stands there; None where nothing runs. Raises StoreError where it cannot be read."""
    path = data / NAME
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return Operator(str(found["url"]), str(found["token"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{path} cannot be read: {error}") from error
