"""Connections: SQLite with one writing connection, or PostgreSQL.

SQLite before 3.51.3 can damage a database when two connections write or checkpoint at the same moment. So exactly one
connection of one process ever writes (a lock file holds others off); readers open the file read-only.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, Engine, create_engine, event, make_url, text, update
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError
from sqlalchemy.pool import NullPool, QueuePool, StaticPool

from rewardloop.errors import ConfigError, StoreError
from rewardloop.feedback.log.failures import StoreUnavailableError, translated
from rewardloop.feedback.log.schema import applied

FILE_NAME: Final = "rewardloop.db"
READERS: Final = 8  # connections kept open for reading
BUSY_S: Final = 5.0  # how long a reader waits for a lock
APPEND_LOCK: Final = 0x7265776C  # PostgreSQL's advisory lock of appends; any number that nobody else takes
SERVING_LOCK: Final = APPEND_LOCK + 1  # and that of the gateway
CHANNEL: Final = "rewardloop_event"


def data_url(data: Path) -> str:
    """The database of a data directory: SQLite, `DIR/rewardloop.db`."""
    return f"sqlite:///{Path(data) / FILE_NAME}"


def is_sqlite(url: str) -> bool:
    """Whether `url` is a SQLite file. Raises ConfigError for another database than SQLite or PostgreSQL."""
    try:
        found = make_url(url)
    except ArgumentError as error:
        raise ConfigError(f"not the URL of a database: {url!r}; expected sqlite:///FILE or postgresql://...") from error
    backend = found.get_backend_name()
    if backend == "sqlite" and found.database and found.database != ":memory:":
        return True
    if backend == "postgresql":
        return False
    raise ConfigError(f"the database is {url!r}; expected sqlite:///FILE or postgresql+psycopg://USER@HOST/NAME")


def database_file(url: str) -> Path:
    """The file of a SQLite URL."""
    return Path(str(make_url(url).database))


# ---------------------------------------------------------------- SQLite


def open_sqlite_writer(url: str) -> Engine:
    """An engine with one connection for writing, whose commits are on the disk when they return."""
    file = database_file(url)

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(file, isolation_level=None, check_same_thread=False, timeout=BUSY_S)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA secure_delete=ON")
        return connection

    engine = create_engine(url, creator=connect, poolclass=StaticPool)
    event.listen(engine, "begin", _begin_immediate)
    return engine


def open_sqlite_reader(url: str) -> Engine:
    """An engine whose connections cannot write."""
    file = database_file(url).absolute()

    def connect() -> sqlite3.Connection:
        name = f"{file.as_uri()}?mode=ro"
        return sqlite3.connect(name, uri=True, isolation_level=None, check_same_thread=False, timeout=BUSY_S)

    engine = create_engine(url, creator=connect, poolclass=QueuePool, pool_size=READERS)
    event.listen(engine, "begin", _begin)
    return engine


def _begin_immediate(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN")


def _forget_tail(engine: Engine) -> None:
    """Write over what a commit has left in the write-ahead log that failed when it was synced.

    It is whole there but for the sync: whoever opened the file next would find it, though its writer was told that
    nothing was stored. The next transaction goes to the same place, this one before anybody opens it.
    """
    try:
        with engine.begin() as connection:
            connection.execute(update(applied).values(applied_seq=applied.c.applied_seq))
    except DBAPIError:  # not synced either, or not written: what counts is that the other one is gone
        engine.dispose()


class WriteLock:
    """A lock file beside the database, held while one process may write. Given back when the process dies."""

    def __init__(self, file: Path) -> None:
        """Raises StoreError when another process has it."""
        self.file = file
        try:
            file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreUnavailableError(f"{file.parent}: {error.strerror}; name another folder") from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = os.pread(self._descriptor, 32, 0).decode(errors="replace").strip()
            os.close(self._descriptor)
            raise StoreError(
                f"{file.parent} is being written by process {owner or '?'}; stop it, or name another data directory"
            ) from error
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        os.close(self._descriptor)


# ---------------------------------------------------------------- PostgreSQL


def open_postgresql(url: str, **options: Any) -> Engine:
    """An engine for PostgreSQL. Raises ConfigError where the driver is not installed."""
    found = make_url(url)
    if found.drivername == "postgresql":
        found = found.set(drivername="postgresql+psycopg")
    try:
        return create_engine(found, pool_pre_ping=True, **options)
    except (ImportError, NoSuchModuleError) as error:
        raise ConfigError("PostgreSQL needs its driver: pip install 'rewardloop[postgres]'") from error


def open_postgresql_writer(url: str) -> Engine:
    """One connection: appends take turns anyway."""
    engine = open_postgresql(url, pool_size=1, max_overflow=0)
    event.listen(engine, "connect", _trust_indexes)
    return engine


def _trust_indexes(connection: Any, _: object) -> None:
    """What a commit asks for is found by an index, however long the log is.

    The planner does not believe it while its statistics are of a shorter log, nor when it plans for any parameters: it
    would walk through whole tables, with every commit.
    """
    with connection.cursor() as cursor:
        for name, value in _BY_INDEX.items():
            cursor.execute(f"SET {name} = {value}")
    connection.commit()


_BY_INDEX: Final = {
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "plan_cache_mode": "force_custom_plan",
    "jit": "off",  # to compile takes longer than to run
}


class ServingLock:
    """Held by the gateway that serves a PostgreSQL database, for as long as its connection is open.

    What a gateway keeps in memory follows its own appends only: a second one would let people in whom the first has
    sent away.
    """

    def __init__(self, url: str, patience_s: float = BUSY_S) -> None:
        """Raises StoreError when another gateway has it; one that was just killed may have it for a moment."""
        engine = open_postgresql(url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
        self._name = str(engine.url.database)  # of the URL nothing else is said: it may hold a password
        with translated(self._name):
            self._connection = engine.connect()
        end = time.monotonic() + patience_s
        while not self._try():
            if time.monotonic() > end:
                self.release()
                raise StoreError("another gateway serves this database; stop it, or name another database")
            time.sleep(0.1)

    def _try(self) -> bool:
        with translated(self._name):
            return bool(self._connection.scalar(text("SELECT pg_try_advisory_lock(:lock)"), {"lock": SERVING_LOCK}))

    def release(self) -> None:
        self._connection.close()


# ---------------------------------------------------------------- both


def open_writer(url: str) -> Engine:
    """The engine that writes."""
    return open_sqlite_writer(url) if is_sqlite(url) else open_postgresql_writer(url)


def open_reader(url: str) -> Engine:
    """The engine that reads."""
    if is_sqlite(url):
        return open_sqlite_reader(url)
    return open_postgresql(url, pool_size=READERS, execution_options={"postgresql_readonly": True})


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """One transaction that appends; others that append wait until it has ended.

    Sequence numbers are handed out inside, so that a reader who remembers the largest one misses nothing. Raises
    StoreError; nothing is stored then, and the next call starts anew.
    """
    with translated(str(engine.url.database)):
        try:
            with engine.begin() as connection:
                if connection.dialect.name == "postgresql":
                    connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": APPEND_LOCK})
                yield connection
        except DBAPIError:
            engine.dispose()  # whatever state the connection is in, the next one is new
            if engine.dialect.name == "sqlite":
                _forget_tail(engine)
            raise


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """One transaction that reads: everything in it is of the same moment. Raises StoreError."""
    with translated(str(engine.url.database)), engine.connect() as connection:
        yield connection
