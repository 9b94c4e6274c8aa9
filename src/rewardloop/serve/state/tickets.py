"""Feedback tokens: what a browser without a key may say, about one answer, for a short time.

A token carries what it allows, signed with a secret of this data directory, so that nothing need be stored.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rewardloop.serve.edge.access import Caller

TICKET_PREFIX: Final = "rlt-"
LONGEST_S: Final = 7 * 24 * 3600
_FILE: Final = "tickets.secret"


@dataclass(frozen=True, slots=True)
class Tickets:
    """Issues tokens and recognizes its own."""

    secret: bytes

    @classmethod
    def of(cls, data: Path) -> Tickets:
        """With the secret of a data directory, made where there is none; for its owner's eyes alone."""
        path = data / _FILE
        if not path.exists():
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(secrets.token_bytes(32))
        return cls(path.read_bytes())

    def issue(self, issuer: str, target: Mapping[str, Any], kinds: list[str], expires_at: float) -> str:
        """A token for judgments of `kinds` about `target`, in the name of `issuer`."""
        allowed = {"by": issuer, "target": dict(target), "kinds": kinds, "until": expires_at, "n": secrets.token_hex(8)}
        body = _encode(json.dumps(allowed, separators=(",", ":"), ensure_ascii=False).encode())
        return f"{TICKET_PREFIX}{body}.{_encode(self._sign(body))}"

    def caller(self, token: str) -> Caller | None:
        """Who holds this token; None for one that is not ours, or too old."""
        body, _, signature = token.removeprefix(TICKET_PREFIX).partition(".")
        try:
            signed = hmac.compare_digest(_decode(signature), self._sign(body))
            allowed = json.loads(_decode(body)) if signed else None
        except ValueError:
            return None
        if allowed is None or allowed["until"] < time.time():
            return None
        return Caller("ticket", allowed["by"], ticket=allowed)

    def _sign(self, body: str) -> bytes:
        return hmac.digest(self.secret, body.encode(), hashlib.sha256)


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
