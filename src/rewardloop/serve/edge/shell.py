"""What surrounds every request: its id, the headers of safety, the size of bodies, who may ask from where, the record.

Plain ASGI, so that streams pass through untouched.
"""

from __future__ import annotations

import random
import time
from collections.abc import Collection, MutableMapping, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rewardloop.serve.edge.errors import ApiError, as_api_error, respond
from rewardloop.serve.edge.telemetry import Telemetry

MOST_BODY: Final = 1 << 20  # bytes
MOST_IMPORT: Final = 256 << 20
MOST_HEADERS: Final = 16 << 10
IMPORTS: Final = "/api/imports"
SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})

CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "font-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types dompurify"
)
HEADERS: Final = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}

_DRESS: Final = tuple((name.encode(), value.encode()) for name, value in HEADERS.items())
_NO_STORE: Final = (b"cache-control", b"no-store")

log = structlog.get_logger("gateway")


class Shell:
    """The outermost layer."""

    def __init__(self, app: ASGIApp, *, hosts: Collection[str], telemetry: Telemetry) -> None:
        self.app = app
        self._hosts = {host.lower() for host in hosts}
        self._telemetry = telemetry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        request_id, began = f"req_{random.getrandbits(128):032x}", time.perf_counter()
        status = 0

        async def dressed(message: Message) -> None:
            nonlocal status
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                status = message["status"]
                _dress(message, request_id)
            await send(message)

        scope.setdefault("state", {})["request_id"] = request_id
        try:
            self._check(scope)
            await self.app(scope, await _whole(scope, receive), dressed)
        except Exception as error:
            answer = as_api_error(error)
            if answer.status == 500:
                log.exception("failed", request_id=request_id, path=scope["path"])
            if status == 0 and scope["type"] == "http":
                await respond(answer)(scope, receive, dressed)
        finally:
            self._note(scope, status, time.perf_counter() - began, request_id)

    def _check(self, scope: Scope) -> None:
        """Raises ApiError for a host that is not ours, and for what another site makes a browser send."""
        headers = _Headers(scope["headers"])
        if sum(len(name) + len(value) for name, value in scope["headers"]) > MOST_HEADERS:
            raise ApiError(431, "the headers are longer than 16 KiB; send fewer", code="headers_too_large")
        host = headers.get(b"host")
        if _hostname(host) not in self._hosts:
            raise ApiError(421, f"the host {host[:100]!r} is not served here", code="unknown_host")
        unsafe = scope["type"] == "websocket" or scope["method"] not in SAFE
        if unsafe and not _same_site(headers, host):
            raise ApiError(403, "requests from other sites are refused", code="cross_site")
        if scope["type"] == "http" and scope["method"] in ("POST", "PUT", "PATCH"):
            _check_body(scope, headers)

    def _note(self, scope: Scope, status: int, seconds: float, request_id: str) -> None:
        route = getattr(scope.get("route"), "path", "unknown")
        method = scope.get("method", "WEBSOCKET")
        self._telemetry.saw_request(method, route, status, seconds)
        log.info(
            "request", request_id=request_id, method=method, route=route, status=status, ms=round(1000 * seconds, 1)
        )


class _Headers:
    """The headers of a request by name, the first where one comes twice. Starlette's search the list each time."""

    def __init__(self, headers: Sequence[tuple[bytes, bytes]]) -> None:
        self._of = dict(reversed(headers))

    def get(self, name: bytes, default: str = "") -> str:
        found = self._of.get(name)
        return default if found is None else found.decode("latin-1")

    def __contains__(self, name: bytes) -> bool:
        return name in self._of


def _dress(message: MutableMapping[str, Any], request_id: str) -> None:
    given = message.get("headers", ())
    there = {name for name, _ in given}
    more = [header for header in (*_DRESS, _NO_STORE) if header[0] not in there]
    message["headers"] = [*given, *more, (b"x-request-id", request_id.encode())]


def _hostname(host: str) -> str:
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""


def _same_site(headers: _Headers, host: str) -> bool:
    """Whether a browser says that the request comes from our own page; other programs say nothing (they hold no cookie
    that they did not want to send)."""
    if b"sec-fetch-site" in headers:
        return headers.get(b"sec-fetch-site") in ("same-origin", "none")
    return b"origin" not in headers or urlsplit(headers.get(b"origin")).netloc.lower() == host.lower()


def _check_body(scope: Scope, headers: _Headers) -> None:
    length, kind = headers.get(b"content-length", "0"), headers.get(b"content-type").split(";")[0].strip().lower()
    has_body = length != "0" or b"transfer-encoding" in headers
    if has_body and kind != "application/json" and scope["path"] != IMPORTS:
        raise ApiError(415, f"the content type is {kind or 'missing'}; send application/json", code="content_type")
    if length.isdigit() and int(length) > _most(scope):
        raise _too_large(scope)


async def _whole(scope: Scope, receive: Receive) -> Receive:
    """`receive`, with the body already read: what is too large is refused before anybody looks at it.

    Raises ApiError 413. Imports may be large, and are read as they come.
    """
    if scope["type"] != "http" or scope["method"] in SAFE or scope["path"] == IMPORTS:
        return receive
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return receive
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > MOST_BODY:
            raise _too_large(scope)
    return beginning_with({"type": "http.request", "body": body, "more_body": False}, receive)


def beginning_with(first: Message, rest: Receive) -> Receive:
    """What gives `first` and then goes on with `rest`."""
    given = False

    async def receive() -> Message:
        nonlocal given
        if given:
            return await rest()
        given = True
        return first

    return receive


def _most(scope: Scope) -> int:
    return MOST_IMPORT if scope["path"] == IMPORTS else MOST_BODY


def _too_large(scope: Scope) -> ApiError:
    return ApiError(413, f"the body is larger than {_most(scope) >> 20} MiB; send less at a time", code="too_large")
