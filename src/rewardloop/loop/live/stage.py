"""Where versions are let in: the gateway, as the learner sees it."""

from __future__ import annotations

import hashlib
import json
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any, Final, Protocol

from rewardloop.errors import StoreError

PATIENCE_S: Final = 60.0  # how long a gateway may be away, while it is started again
WAIT_S: Final = 0.25
ANSWER_S: Final = 30.0
CONFLICT: Final = 422
ONCE: Final = ("policy.published", "policy.gated")  # said once of every version; else the same words are said once


class RefusedError(StoreError):
    """The gateway or the engine did not want it; trying again would not help."""


class Stage(Protocol):
    """Tells the world what the learner has done, and asks for versions to be served."""

    def report(self, kind: str, body: Mapping[str, Any]) -> None:
        """An event of the policy, stored when this returns."""

    def progress(self, values: Mapping[str, Any]) -> None:
        """What the learner is doing; lost without harm."""

    def activate(self, version: int, reason: str) -> None:
        """Serve this version. Raises RefusedError where the engine will not."""

    def roll_back(self, leaving: int, reason: str) -> None:
        """Serve the version that was active before `leaving`."""


class GatewayStage:
    """By HTTP on the loopback address, with the operator's token."""

    def __init__(self, url: str, token: str) -> None:
        self._url = url.rstrip("/")
        self._token = token

    def report(self, kind: str, body: Mapping[str, Any]) -> None:
        # what was stored, but not heard to be, is not stored twice
        said = body["version"] if kind in ONCE else _digest(body)
        self._send("POST", "/api/policy/reports", {"kind": kind, "body": dict(body)}, f"{kind} {said}")

    def progress(self, values: Mapping[str, Any]) -> None:
        try:
            self._once("PUT", "/api/policy/progress", dict(values), timeout_s=2.0)
        except OSError:
            return

    def activate(self, version: int, reason: str) -> None:
        self._send("POST", "/api/policy/activate", {"version": version, "reason": reason})

    def roll_back(self, leaving: int, reason: str) -> None:
        self._send("POST", "/api/policy/rollback", {"leaving": leaving, "reason": reason})

    def _send(self, method: str, path: str, body: Mapping[str, Any], key: str | None = None) -> None:
        """Until it is answered: a gateway that was killed comes back. Raises RefusedError, StoreError."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                self._once(method, path, body, ANSWER_S, key)
            except urllib.error.HTTPError as error:
                message = _message(error)
                if error.code == CONFLICT and key is not None:
                    return  # it was stored before, in other words
                if error.code < 500:
                    raise RefusedError(f"{path}: {message}") from error
                if time.monotonic() > deadline:
                    raise StoreError(f"{path}: {message}") from error
            except OSError as error:
                if time.monotonic() > deadline:
                    raise StoreError(f"the gateway at {self._url} does not answer: {error}") from error
            else:
                return
            time.sleep(WAIT_S)

    def _once(self, method: str, path: str, body: Mapping[str, Any], timeout_s: float, key: str | None = None) -> None:
        request = urllib.request.Request(  # noqa: S310 - the address that the supervisor gave
            self._url + path,
            data=json.dumps(body).encode(),
            method=method,
            headers={"authorization": f"Bearer {self._token}", "content-type": "application/json"}
            | ({"idempotency-key": key} if key else {}),
        )
        with urllib.request.urlopen(request, timeout=timeout_s) as reply:  # noqa: S310
            reply.read()


def _digest(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:32]


def _message(error: urllib.error.HTTPError) -> str:
    try:
        return str(json.loads(error.read())["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"status {error.code}"
