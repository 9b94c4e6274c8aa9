"""`rewardloop policy`: versions of what is served.

Through the gateway while one runs, else in the data directory itself: what is decided then counts from the next start.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from rewardloop.errors import ConfigError
from rewardloop.feedback.log.database import data_url
from rewardloop.feedback.log.event_log import EventLog, LogReader
from rewardloop.feedback.log.events import NewEvent
from rewardloop.loop.manifests import WEIGHTS, is_intact
from rewardloop.loop.processes.operator_file import Operator, read_operator
from rewardloop.loop.processes.supervisor import data_directory
from rewardloop.serve.edge.access import Caller
from rewardloop.serve.state.policy import (
    PAUSED,
    RESUMED,
    Policy,
    described,
    find_version,
    note_active,
    policy_event,
    replayed,
)

ANSWER_S: Final = 120.0  # a version is read and verified before it is answered
ME: Final = Caller("system", "operator", "operator")


def list_versions(data: Path, database: str | None, console: Console) -> None:
    """All versions, the newest first. Raises StoreError where there is no such place."""
    found = _ask(data, "GET", "/api/policy")
    if found is None:
        with LogReader(_url(data, database)) as log:
            found = described(replayed(log), data / WEIGHTS)
    page = found
    while page["next"] is not None:
        page = _ask(data, "GET", f"/api/policy?older_than={page['next']}") or {"versions": [], "next": None}
        found["versions"] += page["versions"]
    found["versions"].sort(key=lambda row: -row["version"])
    console.print(_table(found))
    if found["paused"]:
        console.print(f"learning is paused: {found['pause_reason'] or 'no reason given'}", style="yellow")
    if found["trouble"]:
        console.print(found["trouble"], style="yellow", highlight=False)


def activate(data: Path, database: str | None, version: int, reason: str, console: Console) -> None:
    """Serve `version`. Raises ConfigError with the gateway's words, ApiError, StoreError."""
    found = _ask(data, "POST", "/api/policy/activate", {"version": version, "reason": reason})
    if found is None:
        _decide(data, database, version, lambda policy, last_seq: policy.activation(ME, version, last_seq, reason))
        console.print(f"version {version} will be served from the next start on")
    else:
        console.print(found["trouble"] or f"version {version} is served")


def roll_back(data: Path, database: str | None, reason: str, console: Console) -> None:
    """Serve what was active before. Raises ConfigError with the gateway's words, ApiError, StoreError."""
    found = _ask(data, "POST", "/api/policy/rollback", {"reason": reason})
    if found is not None:
        console.print(found["trouble"] or f"version {found['active']} is served again")
        return
    with LogReader(_url(data, database)) as log:
        version = described(replayed(log), data / WEIGHTS)["before"]
    if version is None:
        raise ConfigError("no earlier version was active; there is nothing to go back to")
    _decide(data, database, version, lambda policy, _: policy.roll_back(ME, version, reason))
    console.print(f"version {version} will be served from the next start on")


def set_paused(data: Path, database: str | None, paused: bool, reason: str, console: Console) -> None:
    """Let learning rest, or go on. Raises ConfigError with the gateway's words, StoreError."""
    if _ask(data, "POST", "/api/policy/learning", {"paused": paused, "reason": reason}) is None:
        with LogReader(_url(data, database)) as log:
            known = replayed(log).paused
        if known != paused:
            _append(data, database, policy_event(PAUSED if paused else RESUMED, ME, {"reason": reason}))
    console.print("learning is paused" if paused else "learning goes on")


# ---------------------------------------------------------------- nothing runs


def _decide(data: Path, database: str | None, version: int, event: Callable[[Policy, int], NewEvent]) -> None:
    """Record that `version` is active, and note it for the next start. Raises ApiError, StoreError, ConfigError."""
    with LogReader(_url(data, database)) as log:
        policy: Policy = replayed(log)
    manifest = find_version(data / WEIGHTS, policy, version)
    if manifest is not None and not is_intact(manifest):
        raise ConfigError(f"version {version} is damaged; choose another")
    known = policy.last_seq(version) or (int(manifest.facts.get("last_seq", 0)) if manifest is not None else 0)
    _append(data, database, event(policy, known), version)


def _append(data: Path, database: str | None, event: NewEvent, version: int | None = None) -> None:
    with data_directory(data), EventLog(_url(data, database)) as log:  # no run begins meanwhile
        log.append([event])
        if version is not None:
            note_active(data / WEIGHTS, version)


def _url(data: Path, database: str | None) -> str:
    return database or data_url(data)


# ---------------------------------------------------------------- a gateway runs


def _ask(data: Path, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any] | None:
    """What the gateway of this data directory answers; None where none runs. Raises ConfigError for a refusal."""
    operator = read_operator(data)
    if operator is None:
        return None
    try:
        with urllib.request.urlopen(_request(operator, method, path, body), timeout=ANSWER_S) as reply:  # noqa: S310
            return dict(json.load(reply))
    except urllib.error.HTTPError as error:
        raise ConfigError(_message(error)) from error
    except urllib.error.URLError as error:
        if isinstance(error.reason, ConnectionRefusedError):
            return None  # the file was left by a run that was killed
        raise ConfigError(f"the gateway at {operator.url} does not answer: {error.reason}") from error
    except (OSError, ValueError) as error:
        raise ConfigError(f"the gateway at {operator.url} does not answer: {error}") from error


def _request(operator: Operator, method: str, path: str, body: Mapping[str, Any] | None) -> urllib.request.Request:
    return urllib.request.Request(  # noqa: S310 - the address that the supervisor wrote
        operator.url + path,
        data=None if body is None else json.dumps(body).encode(),
        method=method,
        headers={"authorization": f"Bearer {operator.token}", "content-type": "application/json"},
    )


def _message(error: urllib.error.HTTPError) -> str:
    try:
        return str(json.loads(error.read())["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"the gateway answered with status {error.code}"


# ---------------------------------------------------------------- words


def _table(found: Mapping[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("version", no_wrap=True)
    table.add_column("published", no_wrap=True)
    for heading in ("judgments", "win rate, 95 %", "KL"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("gate")
    table.add_column("digest", no_wrap=True)
    for row in found["versions"]:
        metrics = row["metrics"]
        table.add_row(
            f"v{row['version']}" + (" (served)" if row["active"] else "" if row["kept"] else " (gone)"),
            (row["published_at"] or "")[5:16].replace("T", " "),
            str(row["feedback"] or ""),
            _win_rate(metrics),
            _number(metrics.get("policy/kl")),
            _gate(row),
            (row["digest"] or "")[:8],
        )
    return table


def _win_rate(metrics: Mapping[str, Any]) -> str:
    value, low, high = (metrics.get(f"held_out/win_rate{end}") for end in ("", "_low", "_high"))
    interval = "" if low is None or high is None else f" ({low:.2f} to {high:.2f})"
    return _number(value) + interval


def _gate(row: Mapping[str, Any]) -> str:
    if row["passed"] is None:
        return ""
    return "passed" if row["passed"] else f"held: {', '.join(row['reasons'])}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
