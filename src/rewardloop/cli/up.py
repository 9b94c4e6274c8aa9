"""`rewardloop up`: serve a model, collect feedback in a page, and learn from it."""

from __future__ import annotations

import os
import socket
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from rewardloop.cli.names import BUILTIN, model_source
from rewardloop.errors import ConfigError
from rewardloop.feedback.log.database import data_url
from rewardloop.loop.manifests import WEIGHTS
from rewardloop.loop.processes.operator_file import operator_file
from rewardloop.loop.processes.supervisor import (
    Program,
    Supervisor,
    data_directory,
    new_token,
    python,
    socket_folder,
    thread_environment,
)

LEARNER = "rewardloop.loop.live"


@dataclass(frozen=True, slots=True)
class Learning:
    """How the model shall learn while it is served."""

    prompts: Path | None = None  # what to practice on; None: what people asked, or the town's questions
    recipe: Path | None = None
    seed: int = 0


def up(
    model: str,
    data: Path,
    host: str,
    port: int,
    database: str | None,
    console: Console,
    learning: Learning | None = None,
    *,
    compiled: bool = False,
) -> None:
    """Run gateway, engine (with a `compiled` step) and, with `learning`, the learner until Ctrl-C.

    Raises ConfigError for what the user must mend.
    """
    _require_free(host, port)
    for path in (learning.prompts, learning.recipe) if learning else ():
        if path is not None and not path.is_file():
            raise ConfigError(f"there is no file {path}")
    name = BUILTIN if model == BUILTIN else Path(model).name
    threads = _engine_threads(learns=learning is not None)
    base = f"http://{host}:{port}"
    with data_directory(data) as folder, socket_folder() as sockets, operator_file(folder, base) as secret:
        token, learners, engine_socket = new_token(), new_token(), sockets / "engine.sock"
        database = database or data_url(folder)
        engine = Program(
            "engine",
            python(
                "rewardloop.loop.processes.engine_server",
                *("--model", model_source(model), "--name", name, "--socket", engine_socket),
                *("--threads", threads, "--weights", folder / WEIGHTS),
                *(("--compiled",) if compiled else ()),
            ),
            thread_environment(threads),
        )
        gateway = Program(
            "gateway",
            python(
                "rewardloop.serve",
                *("--data", folder, "--database", database, "--engine-socket", engine_socket),
                *("--title", name, "--host", host, "--port", port),
                *(("--world",) if model == BUILTIN else ()),
            ),
            thread_environment(1)
            | {
                "REWARDLOOP_SETUP_TOKEN": token,
                "REWARDLOOP_OPERATOR_TOKEN": secret,
                "REWARDLOOP_LEARNER_TOKEN": learners,
            },
        )
        programs = [gateway, engine]
        if learning is not None:
            place = ("--data", folder, "--database", database, "--gateway", base)
            programs.append(_learner(model, name, place, learners, learning))
        console.print(f"starting {name} ... (logs in {folder / 'logs'})")
        Supervisor(programs, folder / "logs", console.print).run(
            lambda: _answers(f"{base}/readyz"), lambda: _welcome(console, base, token)
        )
        console.print("stopped; everything that was said is kept in " + str(folder))


def _learner(model: str, name: str, place: Sequence[object], secret: str, learning: Learning) -> Program:
    """The program that learns; it runs when nobody else wants the processor."""
    command = python(
        LEARNER,
        *(*place, "--model", model_source(model), "--name", name, "--threads", 1),
        *(("--world",) if model == BUILTIN else ()),
        *(("--prompts", learning.prompts.resolve()) if learning.prompts else ()),
        *(("--recipe", learning.recipe.resolve()) if learning.recipe else ()),
        *(("--set", f"seed={learning.seed}") if learning.seed else ()),
    )
    return Program("learner", command, thread_environment(1) | {"REWARDLOOP_OPERATOR_TOKEN": secret}, idle=True)


def _engine_threads(*, learns: bool) -> int:
    """All cores but the learner's: threads of all processes together never exceed them, where there are two or more."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores - 1) if learns else cores


def _welcome(console: Console, base: str, token: str) -> None:
    console.print(f"[bold green]ready[/]  {base}", highlight=False)
    if _setup_needed(base):
        console.print(f"first visit: [bold]{base}/setup#{token}[/]", highlight=False, soft_wrap=True)
        console.print("this link works once, for whoever opens it first", style="dim")
    console.print("stop with Ctrl-C", style="dim")


def _setup_needed(base: str) -> bool:
    with urllib.request.urlopen(f"{base}/api/state", timeout=5) as reply:  # noqa: S310 - our own address
        return b'"setup_needed":true' in reply.read()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1):  # noqa: S310 - our own address
            return True
    except (urllib.error.URLError, OSError):
        return False


def _require_free(host: str, port: int) -> None:
    """Raises ConfigError where somebody else listens there."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ConfigError(f"cannot listen on {host}:{port}: {error.strerror}; choose another --port") from error
