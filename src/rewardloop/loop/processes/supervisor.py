"""`rewardloop up`: starts gateway and engine, restarts what falls over, leaves nothing behind.

Imports neither torch nor the gateway: it only starts programs. One run at a time has a data directory (a lock that the
kernel gives back however the run ends). A child that ends with code 2 has told its user what to mend, so it is not
started again; any other end is followed by a new start, after a wait that doubles from start to start.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final

from rewardloop.environment import FEW_KERNELS
from rewardloop.errors import ConfigError, StoreError
from rewardloop.loop.processes.lifeline import VARIABLE as LIFELINE

FIRST_WAIT_S: Final = 0.1  # before a child is started again
LONGEST_WAIT_S: Final = 10.0
STEADY_S: Final = 30.0  # a child that has lived this long begins with the first wait again
GRACE_S: Final = 5.0  # from the wish to stop to the end by force
POLL_S: Final = 0.05
USER_ERROR: Final = 2


@dataclass(frozen=True, slots=True)
class Program:
    """What a child runs."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    idle: bool = False  # runs only when nobody else wants the processor


@dataclass
class _Child:
    program: Program
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    due_at: float = 0.0
    wait_s: float = FIRST_WAIT_S
    starts: int = 0


class Supervisor:
    """Keeps programs running until it is told to stop."""

    def __init__(self, programs: Sequence[Program], logs: Path, say: Callable[[str], None]) -> None:
        self._children = [_Child(program) for program in programs]
        self._logs = logs
        self._say = say
        self._stopping = 0
        self._lifeline, self._held = os.pipe()
        logs.mkdir(parents=True, exist_ok=True)

    def run(self, ready: Callable[[], bool], on_ready: Callable[[], None]) -> None:
        """Until SIGINT or SIGTERM. `on_ready` is called once, when `ready` says so for the first time.

        Raises ConfigError with the last words of a child that its user must mend.
        """
        told = False
        with self._signals():
            try:
                while not self._stopping:
                    for child in self._children:
                        self._look_after(child)
                    if not told and ready():
                        told = True
                        on_ready()
                    time.sleep(POLL_S)
            finally:
                self._stop_all()

    @contextmanager
    def _signals(self) -> Iterator[None]:
        def stop(*_: object) -> None:
            self._stopping += 1

        before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _look_after(self, child: _Child) -> None:
        now = time.monotonic()
        if child.process is None:
            if now >= child.due_at:
                self._start(child)
            return
        code = child.process.poll()
        if code is None:
            return
        child.process = None
        if code == USER_ERROR:
            raise ConfigError(self._last_words(child.program.name))
        if now - child.started_at > STEADY_S:
            child.wait_s = FIRST_WAIT_S
        child.due_at, child.wait_s = now + child.wait_s, min(2 * child.wait_s, LONGEST_WAIT_S)
        self._say(
            f"{child.program.name} ended ({_how(code)}); starting it again in {child.due_at - now:.1f} s "
            f"(see {self._log(child.program.name)})"
        )

    def _start(self, child: _Child) -> None:
        program = child.program
        environment = {**os.environ, **program.environment, LIFELINE: str(self._lifeline)}
        with self._log(program.name).open("ab") as log:
            child.process = subprocess.Popen(  # noqa: S603 - our own programs
                program.command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(self._lifeline,),
                # Ctrl-C reaches the supervisor alone, which stops its children in order. Not a session of their own:
                # Linux shares the processor out among sessions first (autogroup), and an idle child would have as
                # much of it as those that serve.
                process_group=0,
            )
        if program.idle:
            _make_idle(child.process.pid)
        child.started_at = time.monotonic()
        child.starts += 1

    def _stop_all(self) -> None:
        running = [child.process for child in self._children if child.process is not None]
        for process in running:
            process.terminate()
        deadline = time.monotonic() + GRACE_S
        for process in running:
            while process.poll() is None and time.monotonic() < deadline and self._stopping < 2:
                time.sleep(POLL_S)
            if process.poll() is None:
                process.kill()
            process.wait()
        os.close(self._lifeline)
        os.close(self._held)

    def _log(self, name: str) -> Path:
        return self._logs / f"{name}.log"

    def _last_words(self, name: str) -> str:
        lines = self._log(name).read_text(encoding="utf-8", errors="replace").splitlines()
        return (lines[-1] if lines else f"{name} ended").removeprefix("error: ")


@contextmanager
def data_directory(folder: Path) -> Iterator[Path]:
    """The data directory, for its owner alone, held by this run.

    Raises StoreError where it cannot be made, ConfigError while another run holds it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.chmod(0o700)
        lock = (folder / "run.lock").open("a+")
    except OSError as error:
        raise StoreError(f"cannot use {folder} for data: {error.strerror}; name another one with --data") from error
    with lock:
        _hold(lock, folder)
        yield folder


def _hold(lock: IO[str], folder: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock.seek(0)
        raise ConfigError(
            f"{folder} is in use by process {lock.read().strip() or 'unknown'}; stop that run, or name another "
            "directory with --data"
        ) from error
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()


@contextmanager
def socket_folder() -> Iterator[Path]:
    """A folder for sockets, for its owner alone; short, because paths of sockets must be."""
    folder = Path(tempfile.mkdtemp(prefix="rewardloop-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def thread_environment(threads: int) -> dict[str, str]:
    """What a child's numerical libraries read when they are imported: so many threads, asleep when idle, few kernels.

    Threads of all children together never exceed the cores: spinning ones of a descheduled process make serving fifty
    times slower.
    """
    counts = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))
    return {**counts, **FEW_KERNELS, "OMP_WAIT_POLICY": "PASSIVE", "TOKENIZERS_PARALLELISM": "false"}


def python(module: str, *arguments: object) -> tuple[str, ...]:
    """The command that runs a module of this package."""
    return (sys.executable, "-m", module, *map(str, arguments))


def new_token() -> str:
    """A secret for one use, 256 bits."""
    return secrets.token_urlsafe(32)


def _make_idle(pid: int) -> None:
    if hasattr(os, "sched_setscheduler") and hasattr(os, "SCHED_IDLE"):
        os.sched_setscheduler(pid, os.SCHED_IDLE, os.sched_param(0))
    else:
        os.setpriority(os.PRIO_PROCESS, pid, 19)


def _how(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"code {code}"
