"""HTTP/1.1 as it comes in. httptools parses it at a fraction of h11's cost, but puts no limit on how much it keeps of a
request whose headers do not end; the limit is here."""

from __future__ import annotations

import asyncio
from typing import Any, Final, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MOST_UNHEARD: Final = 64 << 10  # bytes; more than one read of the headers that the Shell accepts

_REFUSAL: Final = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"content-type: application/json\r\nconnection: close\r\ncontent-length: 141\r\n\r\n"
    b'{"error":{"message":"the headers are longer than 16 KiB; send fewer",'
    b'"type":"invalid_request_error","param":null,"code":"headers_too_large"}}'
)


class Gathered:
    """A transport that writes together what is written in one turn of the event loop: head and body of an answer.

    A write is a system call, which gives up the interpreter; to get it back may take longer than all else of an answer.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop = transport, loop
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> None:
        if not self._parts:
            self._loop.call_soon(self._flush)
        self._parts.append(data)

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def _flush(self) -> None:
        parts, self._parts = self._parts, []
        if parts and not self._transport.is_closing():
            self._transport.write(b"".join(parts))


class LimitedHttp(HttpToolsProtocol):
    """Cuts off whoever sends on and on without saying anything: headers, trailers or extensions without an end."""

    _unheard = 0  # bytes since the parser last had something whole to tell

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        gathered = Gathered(cast(asyncio.Transport, transport), self.loop)
        super().connection_made(cast(asyncio.Transport, gathered))

    def data_received(self, data: bytes) -> None:
        self._unheard += len(data)
        super().data_received(data)
        if self._unheard > MOST_UNHEARD and not self.transport.is_closing():
            self.transport.write(_REFUSAL)
            self.transport.close()

    def on_headers_complete(self) -> None:
        self._unheard = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._unheard = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._unheard = 0
        super().on_message_complete()
