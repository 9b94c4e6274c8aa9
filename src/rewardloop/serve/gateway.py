"""What every route of the gateway works with: the log and its one writer, the engine, who is who, limits."""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final, ParamSpec, TypeVar, cast

from fastapi import Depends
from starlette.requests import HTTPConnection

from rewardloop.feedback.log.event_log import EventLog
from rewardloop.feedback.log.events import KINDS, Appended, Event, NewEvent, stored_event
from rewardloop.feedback.log.writer import Writer
from rewardloop.loop.manifests import WEIGHTS
from rewardloop.serve.edge.access import NOBODY, Caller, access_of, authorize
from rewardloop.serve.edge.errors import ApiError
from rewardloop.serve.edge.limits import Limits
from rewardloop.serve.edge.telemetry import Telemetry
from rewardloop.serve.engine.client import EngineClient
from rewardloop.serve.state.accounts import KEY_PREFIX, Accounts
from rewardloop.serve.state.hub import Hub
from rewardloop.serve.state.landing import Landing
from rewardloop.serve.state.passwords import Passwords
from rewardloop.serve.state.people import People
from rewardloop.serve.state.policy import Policy
from rewardloop.serve.state.preferences import Preferences
from rewardloop.serve.state.queue import Queue
from rewardloop.serve.state.tickets import TICKET_PREFIX, Tickets

COOKIE: Final = "rewardloop_session"
KEPT_KINDS: Final = (
    "auth.",
    "settings.",
    "queue.",
    "annotator.",
    "policy.",
)  # of which the present state is kept in memory

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(eq=False)
class Gateway:
    """The state of the process. Everything that must survive it is in the log."""

    data: Path
    log: EventLog
    engine: EngineClient
    model_title: str
    has_world: bool = False  # the model talks about the sandbox's town
    setup_token: str | None = None
    operators: Mapping[str, str] = field(default_factory=dict)  # programs that run this place, and their secrets
    accounts: Accounts = field(default_factory=Accounts)
    preferences: Preferences = field(default_factory=Preferences)
    queue: Queue = field(default_factory=Queue)
    policy: Policy = field(default_factory=Policy)
    limits: Limits = field(default_factory=Limits)
    passwords: Passwords = field(default_factory=Passwords)
    telemetry: Telemetry = field(default_factory=Telemetry)

    def __post_init__(self) -> None:
        self.writer = Writer(self.log)
        self._landing = Landing()
        self.tickets = Tickets.of(self.data)
        self.setting_up = asyncio.Lock()
        self.handing_out = asyncio.Lock()
        self.activating = asyncio.Lock()
        self.people = People(self.log)
        self.hub = Hub(lambda: self.preferences.settings.settling_s)
        self._replay()

    @property
    def weights(self) -> Path:
        """The registry of versions (`loop.manifests`)."""
        return self.data / WEIGHTS

    async def append(self, *events: NewEvent) -> list[Appended]:
        """Store events, all or none; returns after the commit, when they have had their effect here, too.

        Raises IdempotencyError (422), StoreFullError (507), StoreError (503).
        """
        stored = await self._landing.of(self.writer.submit(events))
        for given, appended in zip(events, stored, strict=True):
            if appended.outcome == "stored" and given.kind.startswith(KEPT_KINDS):
                self._apply(stored_event(given, seq=appended.seq, event_id=appended.id, ts=appended.ts))
                if given.kind.startswith("policy."):
                    self.hub.tell_all("policy", **self.policy.news())
        return stored

    async def read(self, question: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Ask the log something, away from the event loop."""
        return await asyncio.to_thread(question, *args, **kwargs)

    async def close(self) -> None:
        self.hub.close()
        await self.engine.close()
        await asyncio.to_thread(self.writer.close)
        self.log.close()

    def identify(self, connection: HTTPConnection) -> Caller:
        """Who is asking: an API key, ticket or operator's secret in the header, or a session in the cookie."""
        scheme, _, secret = connection.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            if secret.startswith(TICKET_PREFIX):
                return self.tickets.caller(secret) or NOBODY
            if secret.startswith(KEY_PREFIX):
                return self.accounts.by_key(secret) or NOBODY
            return self._operator(secret) or NOBODY
        account = self.accounts.by_session(connection.cookies.get(COOKIE, ""))
        return account.caller if account is not None else NOBODY

    def _operator(self, secret: str) -> Caller | None:
        """The program that holds this secret."""
        for name, known in self.operators.items():
            if hmac.compare_digest(known.encode(), secret.encode()):
                return Caller("system", name, name)
        return None

    def progress_of(self, ready_seq: int | None, given_at: float) -> dict[str, str]:
        """How far a judgment has come: its status, and the version where it is live.

        `given_at`: seconds since 1970. `ready_seq`: the place of the log where it became complete; None where its
        answer is not there yet.
        """
        settled = time.time() - given_at >= self.preferences.settings.settling_s
        status = self.policy.stage(ready_seq, settled)
        return {"status": status, **({"version": f"v{self.policy.serving}"} if status == "live" else {})}

    def forget(self, account_id: str) -> None:
        """After an erasure: nothing of this person is left in memory either."""
        self.accounts.forget(account_id)
        self.people = People(self.log, self.people.rulings)

    def is_setup_token(self, token: str) -> bool:
        """Whether this is the secret of the set-up link."""
        return self.setup_token is not None and hmac.compare_digest(self.setup_token.encode(), token.encode())

    def _replay(self) -> None:
        """Everything that accounts and settings have come to."""
        kinds, after = _replayed_kinds(), 0
        while events := self.log.read(after, kinds):
            for event in events:
                self._apply(event)
            after = events[-1].seq

    def _apply(self, event: Event) -> None:
        self.accounts.apply(event)
        self.preferences.apply(event)
        self.queue.apply(event)
        self.policy.apply(event)
        self.people.apply(event)


def _replayed_kinds() -> Sequence[str]:
    return [kind for kind in KINDS if kind.startswith(KEPT_KINDS) and kind != "auth.refused"]


# ---------------------------------------------------------------- what handlers ask for


def gateway_of(connection: HTTPConnection) -> Gateway:
    """The gateway that serves this request."""
    return cast(Gateway, connection.app.state.gateway)


async def admitted(connection: HTTPConnection) -> Caller:
    """Whoever is asking, let in by the table of access. Runs before every handler."""
    caller = gateway_of(connection).identify(connection)
    method = connection.scope.get("method", "WEBSOCKET")
    authorize(connection, caller, access_of(method, connection.scope["route"].path))
    connection.state.caller = caller
    return caller


def caller_of(connection: HTTPConnection) -> Caller:
    return cast(Caller, connection.state.caller)


def account_id_of(connection: HTTPConnection) -> str:
    """The person who asks. Raises ApiError 403 for a program."""
    caller = caller_of(connection)
    if caller.kind != "user":
        raise ApiError(403, "this belongs to a person; sign in with a browser", code="insufficient_permissions")
    return caller.id


# Coroutines, because plain functions would each be sent to a thread and back.
async def _the_gateway(connection: HTTPConnection) -> Gateway:
    return gateway_of(connection)


async def _the_caller(connection: HTTPConnection) -> Caller:
    return caller_of(connection)


TheGateway = Annotated[Gateway, Depends(_the_gateway)]
TheCaller = Annotated[Caller, Depends(_the_caller)]
