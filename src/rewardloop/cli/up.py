"""`rewardloop up`: serve a model, collect feedback, in a page."""

from __future__ import annotations

import os
import socket
import urllib.error
import urllib.request
from pathlib import Path

from rich.console import Console

from rewardloop.cli.names import BUILTIN, model_source
from rewardloop.errors import ConfigError
from rewardloop.feedback.log.database import data_url
from rewardloop.loop.processes.supervisor import (
    Program,
    Supervisor,
    data_directory,
    new_token,
    python,
    socket_folder,
    thread_environment,
)


def up(model: str, data: Path, host: str, port: int, database: str | None, console: Console) -> None:
    """Run gateway and engine until Ctrl-C. Raises ConfigError for what the user must mend."""
    _require_free(host, port)
    name = BUILTIN if model == BUILTIN else Path(model).name
    with data_directory(data) as folder, socket_folder() as sockets:
        token, engine_socket = new_token(), sockets / "engine.sock"
        engine = Program(
            "engine",
            python(
                "rewardloop.loop.processes.engine_server",
                *("--model", model_source(model), "--name", name, "--socket", engine_socket),
                *("--threads", len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()),
            ),
            thread_environment(os.cpu_count() or 1),
        )
        gateway = Program(
            "gateway",
            python(
                "rewardloop.serve",
                *("--data", folder, "--database", database or data_url(folder), "--engine-socket", engine_socket),
                *("--title", name, "--host", host, "--port", port),
                *(("--world",) if model == BUILTIN else ()),
            ),
            thread_environment(1) | {"REWARDLOOP_SETUP_TOKEN": token},
        )
        base = f"http://{host}:{port}"
        console.print(f"starting {name} ... (logs in {folder / 'logs'})")
        Supervisor([gateway, engine], folder / "logs", console.print).run(
            lambda: _answers(f"{base}/readyz"), lambda: _welcome(console, base, token)
        )
        console.print("stopped; everything that was said is kept in " + str(folder))


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
