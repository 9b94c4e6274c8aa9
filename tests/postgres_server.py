"""A PostgreSQL of our own for a session of tests: a temporary cluster, run by a user who is not root."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pytest

_NUMBERS = count()
_FAST = "-c fsync=off -c full_page_writes=off -c max_connections=50 -c shared_buffers=32MB"


class Server:
    """A running cluster that hands out empty databases."""

    def __init__(self, socket: Path, user: str) -> None:
        self.socket, self.user = socket, user

    def url(self, name: str) -> str:
        return f"postgresql+psycopg://{self.user}@/{name}?host={self.socket}"

    def new_database(self) -> str:
        """The URL of a new empty database."""
        import psycopg

        name = f"test_{os.getpid()}_{next(_NUMBERS)}"
        with psycopg.connect(host=str(self.socket), user=self.user, dbname="postgres", autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name} STRATEGY FILE_COPY")
        return self.url(name)


@contextmanager
def running_server() -> Iterator[Server]:
    """Skips the test where PostgreSQL or its driver is not installed."""
    pytest.importorskip("psycopg", reason="the driver of PostgreSQL is not installed (extra `postgres`)")
    binaries = _find_binaries()
    if binaries is None:
        pytest.skip("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    user = _plain_user()
    folder = Path(tempfile.mkdtemp(prefix="rewardloop-pg-"))  # not tmp_path: a socket's name may have 107 characters
    shutil.chown(folder, user)
    try:
        _run_as(user, str(binaries / "initdb"), "-D", str(folder / "data"), "-A", "trust", "-U", user, "--no-sync")
        control = [str(binaries / "pg_ctl"), "-D", str(folder / "data"), "-w", "-l", str(folder / "log")]
        options = f"{_FAST} -c listen_addresses= -c unix_socket_directories={folder}"
        _run_as(user, *control, "-o", options, "start")
        try:
            yield Server(folder, user)
        finally:
            _run_as(user, *control, "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _find_binaries() -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    on_path = shutil.which("initdb")
    return found[-1].parent if found else Path(on_path).resolve().parent if on_path else None


def _plain_user() -> str:
    if os.getuid() != 0:
        return pwd.getpwuid(os.getuid()).pw_name
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name).pw_name
        except KeyError:
            continue
    return pytest.skip("PostgreSQL does not run as root, and there is no other user")


def _run_as(user: str, *command: str) -> None:
    asked = ["runuser", "-u", user, "--", *command] if os.getuid() == 0 else list(command)
    ended = subprocess.run(asked, capture_output=True, text=True, cwd="/", check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
