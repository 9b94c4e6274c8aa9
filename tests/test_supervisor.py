"""Children are started again, stopped in order, and never outlive their supervisor."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from rewardloop.environment import FEW_KERNELS
from rewardloop.errors import ConfigError
from rewardloop.loop.processes.supervisor import Program, Supervisor, data_directory, thread_environment

SRC = Path(__file__).resolve().parents[1] / "src"


def program(name: str, code: str) -> Program:
    return Program(name, (sys.executable, "-c", textwrap.dedent(code)), {"PYTHONPATH": str(SRC)})


def run_beside(tmp_path: Path, children: str) -> subprocess.Popen[bytes]:
    """A supervisor in a process of its own; `children` is the source of a list of programs."""
    code = f"""
        import sys
        from pathlib import Path
        sys.path[:0] = [{str(SRC)!r}]
        from rewardloop.loop.processes.supervisor import Program, Supervisor
        def child(name, code): return Program(name, (sys.executable, "-c", code), {{"PYTHONPATH": {str(SRC)!r}}})
        here = Path({str(tmp_path)!r})
        Supervisor({children}, here / "logs", print).run(lambda: True, lambda: (here / "ready").touch())
    """
    return subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)])


def wait_for(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


SLEEPER = "from rewardloop.loop.processes.lifeline import hold_on; hold_on(); import time; time.sleep(600)"
STUBBORN = "import signal; signal.signal(15, signal.SIG_IGN); " + SLEEPER


def children_of(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children()


def test_a_child_that_falls_is_started_again(tmp_path: Path) -> None:
    supervisor = run_beside(tmp_path, f"[child('sleeper', {SLEEPER!r})]")
    wait_for(lambda: len(children_of(supervisor)) == 1)
    (first,) = children_of(supervisor)
    first.send_signal(signal.SIGKILL)
    wait_for(lambda: [child.pid for child in children_of(supervisor)] not in ([], [first.pid]))
    supervisor.send_signal(signal.SIGTERM)
    assert supervisor.wait(timeout=20) == 0


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_behind(tmp_path: Path, how: signal.Signals) -> None:
    supervisor = run_beside(tmp_path, f"[child('a', {SLEEPER!r}), child('b', {SLEEPER!r})]")
    wait_for(lambda: len(children_of(supervisor)) == 2)
    left = children_of(supervisor)
    # Python needs a moment to get as far as holding on
    wait_for(lambda: all(child.num_threads() > 1 for child in left))
    supervisor.send_signal(how)
    supervisor.wait(timeout=20)
    wait_for(lambda: not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in left))


def test_who_does_not_stop_is_killed(tmp_path: Path) -> None:
    supervisor = run_beside(tmp_path, f"[child('stubborn', {STUBBORN!r})]")
    wait_for(lambda: len(children_of(supervisor)) == 1 and children_of(supervisor)[0].num_threads() > 1)
    (child,) = children_of(supervisor)
    supervisor.send_signal(signal.SIGTERM)
    supervisor.wait(timeout=30)
    wait_for(lambda: not child.is_running())


def test_what_the_user_must_mend_is_said_and_not_tried_again(tmp_path: Path) -> None:
    wrong = program("wrong", "import sys; print('error: no such model', file=sys.stderr); sys.exit(2)")
    with pytest.raises(ConfigError, match=r"^no such model$"):
        Supervisor([wrong], tmp_path / "logs", lambda _: None).run(lambda: False, lambda: None)


def test_waits_double(tmp_path: Path) -> None:
    said: list[str] = []
    falling = program("falling", "raise SystemExit(1)")

    def say(text: str) -> None:
        said.append(text)
        if len(said) == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    Supervisor([falling], tmp_path / "logs", say).run(lambda: False, lambda: None)
    assert [text.split("again in ")[1].split(" s")[0] for text in said] == ["0.1", "0.2", "0.4"]
    assert all("code 1" in text for text in said)


def test_a_data_directory_has_one_run_at_a_time(tmp_path: Path) -> None:
    with data_directory(tmp_path / "data") as folder:
        assert folder.stat().st_mode & 0o777 == 0o700
        with pytest.raises(ConfigError, match=f"in use by process {os.getpid()}"), data_directory(tmp_path / "data"):
            pass
    with data_directory(tmp_path / "data"):
        pass


@pytest.mark.skipif(not hasattr(os, "SCHED_IDLE"), reason="only Linux has this policy")
def test_an_idle_child_yields_to_its_siblings(tmp_path: Path) -> None:
    """Within one session: in one of its own, Linux gives it a fair share of the processor again."""
    learner = f"[Program('learner', child('', {SLEEPER!r}).command, idle=True), child('engine', {SLEEPER!r})]"
    supervisor = run_beside(tmp_path, learner)
    wait_for(lambda: (tmp_path / "ready").exists())
    idle, usual = sorted(children_of(supervisor), key=lambda child: child.pid)
    policies = [os.sched_getscheduler(child.pid) for child in (idle, usual)]
    sessions = {os.getsid(child.pid) for child in (idle, usual)}
    groups = {os.getpgid(process.pid) for process in (supervisor, idle, usual)}
    supervisor.send_signal(signal.SIGINT)
    assert supervisor.wait(20) == 0
    assert policies == [os.SCHED_IDLE, os.SCHED_OTHER]
    assert len(sessions) == 1
    assert len(groups) == 3  # Ctrl-C goes to one of them


def test_idle_threads_sleep() -> None:
    environment = thread_environment(1)
    assert environment["OMP_NUM_THREADS"] == environment["MKL_NUM_THREADS"] == "1"
    assert environment["OMP_WAIT_POLICY"] == "PASSIVE"
    assert FEW_KERNELS.items() <= environment.items()
