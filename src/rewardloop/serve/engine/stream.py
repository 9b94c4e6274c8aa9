"""One streamed answer of the engine, read cheaply: a general HTTP client costs a fifth of a millisecond for each token.

A connection of its own; what came since the last look is handed over as one block.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, cast
from urllib.parse import urlsplit

import httptools

MOST_KEPT: Final = 1 << 18  # bytes that wait for a slow listener; then the engine has to wait, too


class EngineStream(asyncio.Protocol):
    """The answer to one request. `status` and `headers` are there once `opened` has returned."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._blocks: list[bytes] = []
        self._kept = 0
        self._news = asyncio.Event()
        self._ended = False
        self._failure: Exception | None = None

    async def opened(self, silence_s: float) -> None:
        """Wait for status and headers. Raises OSError where there is no answer, or none in `silence_s` seconds."""
        while not self.status:
            await self._more(silence_s)
            if self._ended and not self.status:
                raise ConnectionError("the connection ended before there was an answer")

    async def blocks(self, silence_s: float) -> AsyncGenerator[bytes]:
        """The body, as it comes, to its end or to that of the connection.

        Raises OSError after `silence_s` seconds without a byte.
        """
        while True:
            if self._blocks:
                block, self._blocks, self._kept = b"".join(self._blocks), [], 0
                if self._transport is not None and not self._ended:
                    self._transport.resume_reading()
                yield block
            elif self._ended:
                return
            else:
                await self._more(silence_s)

    async def _more(self, silence_s: float) -> None:
        self._news.clear()
        if not self._ended:
            async with asyncio.timeout(silence_s):
                await self._news.wait()
        if self._failure is not None:
            raise self._failure

    # ------------------------------------------------------------ told by the connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # of whatever event loop is installed

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._end(ConnectionError(f"the engine does not speak HTTP: {error}"))

    def connection_lost(self, error: Exception | None) -> None:
        self._end(error)

    def _end(self, failure: Exception | None = None) -> None:
        self._failure = self._failure or (None if self._ended else failure)
        self._ended = True
        self._news.set()

    # ------------------------------------------------------------ told by the parser

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()
        self._news.set()

    def on_body(self, body: bytes) -> None:
        self._blocks.append(body)
        self._kept += len(body)
        if self._kept > MOST_KEPT and self._transport is not None:
            self._transport.pause_reading()
        self._news.set()

    def on_message_complete(self) -> None:
        self._end()


@asynccontextmanager
async def post(
    url: str, path: str, body: Mapping[str, Any], *, socket: str | None, connect_s: float, silence_s: float
) -> AsyncIterator[EngineStream]:
    """Ask the server at `url` (over the local `socket`, if there is one); gives an answer whose headers have come.

    Leaving the context ends the connection, by which the engine knows that nobody listens. Raises OSError.
    """
    parts = urlsplit(url)
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(connect_s):
        if socket is not None:
            transport, stream = await loop.create_unix_connection(EngineStream, socket)
        else:
            secure = ssl.create_default_context() if parts.scheme == "https" else None
            port = parts.port or (443 if secure else 80)
            transport, stream = await loop.create_connection(EngineStream, parts.hostname or "", port, ssl=secure)
    try:
        data = json.dumps(body, separators=(",", ":")).encode()
        head = (
            f"POST {parts.path.rstrip('/')}{path} HTTP/1.1\r\nhost: {parts.netloc.rpartition('@')[2]}\r\n"
            f"content-type: application/json\r\naccept-encoding: identity\r\nconnection: close\r\n"
            f"content-length: {len(data)}\r\n\r\n"
        )
        transport.write(head.encode() + data)
        await stream.opened(silence_s)
        yield stream
    finally:
        transport.abort()
