"""What can go wrong below the log: full disks, failing syncs, killed processes, other writers and schemas, damage."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from log_events import derived, finished, said, started
from postgres_server import Server
from rewardloop.errors import ConfigError, StoreError
from rewardloop.feedback.log import event_log, migrating
from rewardloop.feedback.log.database import ServingLock, data_url, is_sqlite, reading
from rewardloop.feedback.log.event_log import EventLog, LogReader
from rewardloop.feedback.log.failures import StoreDamagedError, StoreFullError, StoreUnavailableError
from rewardloop.feedback.log.schema import HEAD, metadata
from rewardloop.feedback.log.writer import Writer

BIG = "x" * 100_000
CRASHING = Path(__file__).with_name("crashing_writer.py")


# ---------------------------------------------------------------- disks


def test_a_full_disk_refuses_and_goes_on_by_itself_when_there_is_space(tmp_path: Path) -> None:
    log = EventLog(data_url(tmp_path))
    connection: Any = log.writer.raw_connection().driver_connection
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    with Writer(log) as writer:
        connection.execute(f"PRAGMA max_page_count={pages + 8}")
        with pytest.raises(StoreFullError, match="no space left"):
            writer.submit([said("c1", key="k", metadata={"note": BIG})]).result(timeout=60)
        assert log.last_seq() == 0
        # the connection that was limited is gone; on a real disk the space is there again
        (again,) = writer.submit([said("c1", key="k", metadata={"note": BIG})]).result(timeout=60)
        assert (again.seq, again.outcome) == (1, "stored")
    log.close()


def test_a_file_system_that_is_really_full(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("a small file system cannot be mounted here (needs root)")
    try:
        with EventLog(data_url(disk / "data")) as log, Writer(log) as writer:
            acknowledged = 0
            with pytest.raises(StoreFullError):
                while True:
                    writer.submit([said("c1", metadata={"note": BIG})]).result(timeout=60)
                    acknowledged += 1
            assert acknowledged
            assert log.last_seq() == acknowledged
            subprocess.run(["mount", "-o", "remount,size=8m", str(disk)], check=True)
            assert writer.submit([said("c1")]).result(timeout=60)[0].seq == acknowledged + 1
            assert len(log.read()) == acknowledged + 1
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_failing_sync_acknowledges_nothing_and_is_got_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = EventLog(data_url(tmp_path))

    def fail(*_: object) -> None:
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
        raise error

    with Writer(log) as writer:
        with monkeypatch.context() as patch:
            patch.setattr(log.writer.dialect, "do_commit", fail)
            futures = [writer.submit([said("c1", key=str(number))]) for number in range(3)]
            for future in futures:
                assert type(future.exception(timeout=60)) is StoreUnavailableError
        assert log.read() == []
        assert writer.submit([said("c1", key="0")]).result(timeout=60)[0].seq == 1
    log.close()


FAILING_SYNC = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>
static int attempt(const char *name, int file) {
    if (access(getenv("SYNC_FAILS"), F_OK) == 0) { errno = EIO; return -1; }
    return ((int (*)(int))dlsym(RTLD_NEXT, name))(file);
}
int fsync(int file) { return attempt("fsync", file); }
int fdatasync(int file) { return attempt("fdatasync", file); }
"""
AMONG_FAILING_SYNCS = """
import os, sys
from pathlib import Path
from log_events import said
from rewardloop.errors import StoreError
from rewardloop.feedback.log.database import data_url
from rewardloop.feedback.log.event_log import EventLog
from rewardloop.feedback.log.writer import Writer

flag = Path(os.environ["SYNC_FAILS"])
with EventLog(data_url(Path(sys.argv[1]))) as log, Writer(log) as writer:
    for turn in range(12):
        flag.touch() if turn % 4 > 1 else flag.unlink(missing_ok=True)
        try:
            (stored,) = writer.submit([said("c1", key=str(turn))]).result(timeout=60)
            print("acknowledged", turn, stored.seq)
        except StoreError as error:
            print("refused", turn, type(error).__name__, len(log.read()))
    flag.unlink(missing_ok=True)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="LD_PRELOAD is of Linux")
def test_what_the_kernel_fails_to_sync_is_not_acknowledged(tmp_path: Path) -> None:
    """Not a patched library: the system calls themselves fail, for SQLite as for everybody."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler")
    source, shim, data = tmp_path / "sync.c", tmp_path / "sync.so", tmp_path / "data"
    source.write_text(FAILING_SYNC)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(shim), str(source), "-ldl"], check=True)
    paths = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    failing = {"LD_PRELOAD": str(shim), "SYNC_FAILS": str(tmp_path / "fails"), "PYTHONPATH": paths}
    command = [sys.executable, "-c", AMONG_FAILING_SYNCS, str(data)]
    run = subprocess.run(command, env=os.environ | failing, capture_output=True, text=True, check=True)
    said_of = [line.split() for line in run.stdout.splitlines()]
    assert [words[0] for words in said_of] == ["acknowledged", "acknowledged", "refused", "refused"] * 3
    assert {words[2] for words in said_of if words[0] == "refused"} == {"StoreUnavailableError"}
    with EventLog(data_url(data)) as log:
        stored = {event.idem_key: event.seq for event in log.read()}
    assert stored == {words[1]: int(words[2]) for words in said_of if words[0] == "acknowledged"}


def test_a_mistake_of_ours_fails_the_callers_and_the_writer_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    with EventLog(data_url(tmp_path)) as log, Writer(log) as writer:
        with monkeypatch.context() as patch:
            patch.setattr(event_log, "apply", broken)
            with pytest.raises(StoreError, match="ZeroDivisionError"):
                writer.submit([said("c1")]).result(timeout=60)
        assert writer.submit([said("c1")]).result(timeout=60)[0].seq == 1


# ---------------------------------------------------------------- processes


def test_a_killed_writer_loses_nothing_acknowledged_and_a_retry_doubles_nothing(tmp_path: Path) -> None:
    url = data_url(tmp_path / "data")
    acknowledged: dict[tuple[str, str], int] = {}
    for life in range(3):
        command = [sys.executable, str(CRASHING), url]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            lines = [process.stdout.readline() for _ in range(40 + 37 * life)]
            process.send_signal(signal.SIGKILL)
            lines += process.stdout.readlines()
        for line in lines:
            if line.endswith("\n"):
                actor, key, seq = line.split()
                assert acknowledged.setdefault((actor, key), int(seq)) == int(seq)
    with EventLog(url) as log:
        stored = {(event.actor_id, str(event.idem_key)): event.seq for event in log.read(limit=10**6)}
        assert len(acknowledged) > 100
        assert acknowledged.items() <= stored.items()
        live = derived(log)
        log.rebuild()
        assert derived(log) == live
    with sqlite3.connect(tmp_path / "data" / "rewardloop.db") as plain:
        assert plain.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    plain.close()


def test_only_one_process_writes_and_others_read(tmp_path: Path) -> None:
    url = data_url(tmp_path)
    with EventLog(url) as log:
        log.append([said("c1")])
        with pytest.raises(StoreError, match=r"being written by process \d+; stop it"):
            EventLog(url)
        with LogReader(url) as reader:
            assert reader.last_seq() == 1
            with pytest.raises(sa.exc.OperationalError, match="readonly"), reader.reader.begin() as connection:
                connection.exec_driver_sql("DELETE FROM event")
    with EventLog(url) as log:  # the lock was given back
        assert log.last_seq() == 1


def test_one_gateway_serves_a_postgresql_database(postgres: Server) -> None:
    url = postgres.new_database()
    first = ServingLock(url)
    with pytest.raises(StoreError, match="another gateway"):
        ServingLock(url, patience_s=0.3)
    ServingLock(postgres.new_database()).release()  # of another database
    first.release()
    ServingLock(url, patience_s=5).release()


def test_commits_reach_the_disk(tmp_path: Path) -> None:
    with EventLog(data_url(tmp_path)) as log:
        connection: Any = log.writer.raw_connection().driver_connection
        settings = {
            name: connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")
        }
    assert settings == {"journal_mode": "wal", "synchronous": 2}


# ---------------------------------------------------------------- schemas


def test_the_migrations_lead_to_the_tables_of_the_program(database_url: str) -> None:
    config = Config()
    config.set_main_option("script_location", migrating.MIGRATIONS)
    config.set_main_option("path_separator", "os")
    assert ScriptDirectory.from_config(config).get_current_head() == HEAD
    with EventLog(database_url) as log, reading(log.reader) as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


def test_a_newer_schema_and_a_database_of_others_are_refused(database_url: str) -> None:
    with EventLog(database_url) as log, log.writer.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    for opener in (EventLog, LogReader):
        with pytest.raises(StoreError, match=r"schema 9999.*newer version"):
            opener(database_url)
    engine = log.writer
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE alembic_version")
    engine.dispose()
    with pytest.raises(StoreError, match="belongs to another program"):
        EventLog(database_url)


def test_a_copy_is_made_before_a_migration_and_derived_tables_can_be_asked_for_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = data_url(tmp_path / "data")
    with EventLog(url) as log:
        log.append([started("c1"), finished("c1"), said("c1")])
        before = derived(log)
    folder = tmp_path / "migrations"
    shutil.copytree(Path(migrating.__file__).parents[1] / "migrations", folder)
    (folder / "versions" / "0002_next.py").write_text(
        "import sqlalchemy as sa\nfrom alembic import op\n"
        "revision, down_revision = '0002', '0001'\n"
        "def upgrade():\n"
        "    op.add_column('blob', sa.Column('extra', sa.Text))\n"
        "    op.execute('UPDATE applied SET applied_seq = 0')\n"
        "    op.execute('DELETE FROM feedback_current')\n"
    )
    monkeypatch.setattr(event_log, "HEAD", "0002")
    monkeypatch.setattr(event_log, "migrate", lambda engine: migrating.migrate(engine, str(folder), "0002"))
    monkeypatch.setattr(event_log, "check_version", lambda engine, have: migrating.check_version(engine, have, "0002"))
    with EventLog(url) as log:
        assert derived(log) == before
        assert log.migrated_copy is not None
        assert log.migrated_copy.parent == tmp_path / "data" / "backups"
        with sqlite3.connect(log.migrated_copy) as copy:
            assert copy.execute("SELECT count(*) FROM event").fetchone() == (3,)
            assert copy.execute("SELECT version_num FROM alembic_version").fetchone() == ("0001",)
        copy.close()
    with EventLog(url) as log:
        assert log.migrated_copy is None


def _no_database(file: Path) -> None:
    file.write_bytes(b"This is a letter to my aunt. " * 100)


def _torn(file: Path) -> None:
    whole = bytearray(file.read_bytes())
    whole[4096 : len(whole)] = b"\xff" * (len(whole) - 4096)
    file.write_bytes(whole)


@pytest.mark.parametrize("damage", [_no_database, _torn])
def test_a_damaged_file_is_named_and_what_to_do(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    url = data_url(tmp_path)
    with EventLog(url) as log:
        log.append([said("c1", metadata={"note": BIG})])
    damage(tmp_path / "rewardloop.db")
    with pytest.raises(StoreDamagedError, match=r"rewardloop\.db: .*put back a copy"):
        EventLog(url)


def test_urls_that_cannot_be_used(tmp_path: Path) -> None:
    for wrong in ("mysql://a/b", "sqlite://", "sqlite:///:memory:", "::"):
        with pytest.raises(ConfigError, match=r"sqlite:///FILE"):
            is_sqlite(wrong)
    with pytest.raises(StoreError, match="no database at"):
        LogReader(data_url(tmp_path))
    with pytest.raises(StoreUnavailableError):
        EventLog("postgresql://nobody@localhost:1/nothing?connect_timeout=2")
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnavailableError, match="name another folder"):
        EventLog(data_url(tmp_path / "file" / "data"))


def test_opening_is_quick_and_needs_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom rewardloop.feedback.log.event_log import EventLog\n"
        "import rewardloop.feedback.log.settled, rewardloop.feedback.log.writer\n"
        f"EventLog('sqlite:///{tmp_path}/rewardloop.db').close()\n"
        f"EventLog('sqlite:///{tmp_path}/rewardloop.db').close()\n"
        "assert 'torch' not in sys.modules and 'sklearn' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
