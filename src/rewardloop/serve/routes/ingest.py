"""POST /v1/feedback by a short way: what comes a thousand times a second should not cost a walk through all of FastAPI.

Only what is sound takes it: everything else goes on to the route of `feedback_routes`, which says what is wrong with it
and is what the interface is described by. Access, limits, idempotency and storing are the same code in both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pydantic import TypeAdapter, ValidationError
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rewardloop.feedback.log.submissions import Submission
from rewardloop.serve.edge.access import access_of, authorize
from rewardloop.serve.edge.shell import beginning_with
from rewardloop.serve.gateway import Gateway
from rewardloop.serve.routes.feedback import Judged, store

LONGEST_KEY: Final = 200  # characters, as the route declares


@dataclass(frozen=True, slots=True)
class _Route:
    """As telemetry and the record know it."""

    path: str


_FEEDBACK: Final = _Route("/v1/feedback")
_JUDGED: Final[TypeAdapter[Submission]] = TypeAdapter(Judged)


class Ingest:
    """Answers sound judgments; hands everything else to `app`. Behind the Shell, which has read the body."""

    def __init__(self, app: ASGIApp, gateway: Gateway) -> None:
        self._app = app
        self._gateway = gateway

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != _FEEDBACK.path or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        first = await receive()
        connection = HTTPConnection(scope)
        key = connection.headers.get("idempotency-key")
        given = _sound(first)
        if given is None or not (key is None or 1 <= len(key) <= LONGEST_KEY):
            await self._app(scope, beginning_with(first, receive), send)
            return
        scope["route"] = _FEEDBACK
        caller = self._gateway.identify(connection)
        authorize(connection, caller, access_of("POST", _FEEDBACK.path))
        response = await store(self._gateway, caller, given, key)
        await response(scope, receive, send)


def _sound(message: Message) -> Submission | None:
    """The judgment, if the whole of one has come."""
    if message["type"] != "http.request" or message.get("more_body"):
        return None
    try:
        return _JUDGED.validate_json(message["body"])
    except ValidationError:
        return None
