"""What every route of the gateway works with: the log and its one writer, the engine, who is who, limits."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final, ParamSpec, TypeVar, cast

from fastapi import Depends
from starlette.requests import HTTPConnection

from rewardloop.feedback.log.event_log import EventLog
from rewardloop.feedback.log.events import KINDS, Appended, Event, NewEvent, stored_event
from rewardloop.feedback.log.writer import Writer
from rewardloop.serve.access import NOBODY, Caller, access_of, authorize
from rewardloop.serve.accounts import KEY_PREFIX, Accounts
from rewardloop.serve.engine_client import EngineClient
from rewardloop.serve.errors import ApiError
from rewardloop.serve.hub import Hub
from rewardloop.serve.landing import Landing
from rewardloop.serve.limits import Limits
from rewardloop.serve.passwords import Passwords
from rewardloop.serve.people import People
from rewardloop.serve.preferences import Preferences
from rewardloop.serve.queue import Queue
from rewardloop.serve.telemetry import Telemetry
from rewardloop.serve.tickets import TICKET_PREFIX, Tickets

COOKIE: Final = "rewardloop_session"
KEPT_KINDS: Final = ("auth.", "settings.", "queue.", "annotator.")  # of which the present state is kept in memory

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
    accounts: Accounts = field(default_factory=Accounts)
    preferences: Preferences = field(default_factory=Preferences)
    queue: Queue = field(default_factory=Queue)
    limits: Limits = field(default_factory=Limits)
    passwords: Passwords = field(default_factory=Passwords)
    telemetry: Telemetry = field(default_factory=Telemetry)

    def __post_init__(self) -> None:
        self.writer = Writer(self.log)
        self._landing = Landing()
        self.tickets = Tickets.of(self.data)
        self.setting_up = asyncio.Lock()
        self.handing_out = asyncio.Lock()
        self.people = People(self.log)
        self.hub = Hub(lambda: self.preferences.settings.settling_s)
        self._replay()

    async def append(self, *events: NewEvent) -> list[Appended]:
        """Store events, all or none; returns after the commit, when they have had their effect here, too.

        Raises IdempotencyError (422), StoreFullError (507), StoreError (503).
        """
        stored = await self._landing.of(self.writer.submit(events))
        for given, appended in zip(events, stored, strict=True):
            if appended.outcome == "stored" and given.kind.startswith(KEPT_KINDS):
                self._apply(stored_event(given, seq=appended.seq, event_id=appended.id, ts=appended.ts))
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
        """Who is asking: an API key or ticket in the header, or a session in the cookie."""
        scheme, _, secret = connection.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            if secret.startswith(TICKET_PREFIX):
                return self.tickets.caller(secret) or NOBODY
            return (secret.startswith(KEY_PREFIX) and self.accounts.by_key(secret)) or NOBODY
        account = self.accounts.by_session(connection.cookies.get(COOKIE, ""))
        return account.caller if account is not None else NOBODY

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
