"""HTTP/1.1 as it comes in. httptools parses it at a fraction of h11's cost, but puts no limit on how much it keeps of a
request whose headers do not end; the limit is here."""

from __future__ import annotations

from typing import Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MOST_UNHEARD: Final = 64 << 10  # bytes; more than one read of the headers that the Shell accepts

_REFUSAL: Final = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"content-type: application/json\r\nconnection: close\r\ncontent-length: 141\r\n\r\n"
    b'{"error":{"message":"the headers are longer than 16 KiB; send fewer",'
    b'"type":"invalid_request_error","param":null,"code":"headers_too_large"}}'
)


class LimitedHttp(HttpToolsProtocol):
    """Cuts off whoever sends on and on without saying anything: headers, trailers or extensions without an end."""

    _unheard = 0  # bytes since the parser last had something whole to tell

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
