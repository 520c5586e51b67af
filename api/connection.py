"""One client's connection: how much it may say before a request is complete, and how long that may take."""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from api.settings import ApiSettings

LINGER_S = 2.0
"""How long a client that was refused may go on talking; its system drops an answer that a reset overtakes."""


class HeadTooLarge(Exception):
    """The request line and its headers are larger than the server takes."""


class GuardedConnection(HttpToolsProtocol):
    """uvicorn's connection, which by itself waits for a slow client for ever and keeps headers of any size."""

    max_header_bytes = 0
    receive_timeout_s = 0.0

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._num_pieces_bytes = self._num_header_bytes = 0
        self._is_in_head = True
        self._is_refused = False
        self._clock: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._wait(self.receive_timeout_s)

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count the bytes of a head that comes in pieces; what comes after a refusal is nothing."""
        if self._is_refused:
            return
        self._num_pieces_bytes += len(data)
        super().data_received(data)
        is_open = not (self._is_refused or self.transport.is_closing())
        if is_open and self._is_in_head and self._num_pieces_bytes > self.max_header_bytes:
            self._refuse()

    def on_message_begin(self) -> None:
        """Begin to wait for the rest of a request."""
        super().on_message_begin()
        self._is_in_head = True
        self._wait(self.receive_timeout_s)

    def on_url(self, url: bytes) -> None:
        """Count the bytes of a head that comes at once."""
        super().on_url(url)
        self._count(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count them on."""
        super().on_header(name, value)
        self._count(len(name) + len(value))

    def on_headers_complete(self) -> None:
        """Leave the head behind."""
        self._is_in_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The request is all there."""
        self._num_pieces_bytes = self._num_header_bytes = 0
        self._stop_waiting()
        super().on_message_complete()

    def _wait(self, timeout_s: float) -> None:
        self._stop_waiting()
        self._clock = self.loop.call_later(timeout_s, self._give_up)

    def _stop_waiting(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None

    def _give_up(self) -> None:
        self.transport.close()

    def _count(self, num_bytes: int) -> None:
        self._num_header_bytes += num_bytes
        if self._num_header_bytes > self.max_header_bytes:
            raise HeadTooLarge  # the parser stops, and uvicorn refuses what it can't parse

    def send_400_response(self, msg: str) -> None:
        """Refuse what can't be parsed."""
        if self._num_header_bytes > self.max_header_bytes:
            self._refuse()
        else:
            super().send_400_response(msg)

    def _refuse(self) -> None:
        """Say so; to close with bytes unread would reset the connection, and the client might never hear it."""
        self._is_refused = True
        self.transport.write(b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\n\r\n")
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._wait(LINGER_S)


def guarded(settings: ApiSettings) -> type[GuardedConnection]:
    """Return the class of this server's connections; uvicorn makes them, so that limits can't be handed to each."""

    class Connection(GuardedConnection):
        max_header_bytes = settings.max_header_bytes
        receive_timeout_s = settings.receive_timeout_s

    return Connection
