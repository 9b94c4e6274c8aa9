"""What goes wrong below the log, in its own words. The gateway answers 507 to StoreFullError, 503 to the others."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from rewardloop.errors import DataError, StoreError


class StoreFullError(StoreError):
    """There is no space left; nothing was stored. It goes on by itself once there is space."""


class StoreUnavailableError(StoreError):
    """The database cannot be written or read now (I/O error, connection lost); nothing was stored. Try again."""


class StoreBusyError(StoreUnavailableError):
    """More is waiting to be written than the queue holds; nothing was stored. Try again a little later."""


class StoreDamagedError(StoreError):
    """The file is no database, or a damaged one."""


class IdempotencyError(DataError):
    """The idempotency key was used before with another body; nothing was stored (422)."""


_FULL = {sqlite3.SQLITE_FULL}
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_FULL_STATES = {"53100", "53200"}  # PostgreSQL: disk full, out of memory


@contextmanager
def translated(where: str) -> Iterator[None]:
    """Turn every error of the database into a StoreError that says what to do."""
    try:
        yield
    except DBAPIError as error:
        raise _translate(error.orig, where) from error
    except sqlite3.Error as error:
        raise _translate(error, where) from error
    except SQLAlchemyError as error:
        raise StoreUnavailableError(f"{where}: {error}") from error


def _translate(error: BaseException | None, where: str) -> StoreError:
    code = getattr(error, "sqlite_errorcode", -1) & 0xFF  # extended codes keep the plain one in their low byte
    if code in _FULL or getattr(error, "sqlstate", None) in _FULL_STATES:
        return StoreFullError(f"{where}: no space left; free some, it goes on by itself")
    if code in _DAMAGED:
        return StoreDamagedError(f"{where}: not a database, or damaged ({error}); put back a copy from backups/")
    return StoreUnavailableError(f"{where}: {str(error).strip()}; nothing was stored, try again")
