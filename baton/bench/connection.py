"""HTTP/1.1 connections that cost a few microseconds a chunk; a general client costs as much as the servers measured."""

import asyncio
import ssl
import time
from types import TracebackType
from typing import Self, cast
from urllib.parse import urlsplit

import httptools

from baton.bench.reply import Reply
from baton.client.endpoint import Endpoint

MAX_IDLE_S = 2.0
"""Servers close idle connections after some seconds, and a request must not meet that."""


class Connection(asyncio.Protocol):
    """One connection, one request at a time; it is closed after an error."""

    def __init__(self) -> None:
        self.idle_since_s = 0.0
        self._transport: asyncio.Transport | None = None
        self._ended: asyncio.Future[None] | None = None

    @property
    def is_open(self) -> bool:
        """Whether another request can be sent."""
        return self._transport is not None and not self._transport.is_closing()

    async def ask(self, request: bytes, reply: Reply) -> None:
        """Send a request and return at the end of the answer; raises ConnectionError if it breaks off."""
        assert self._transport is not None
        self._reply = reply
        self._parser = httptools.HttpResponseParser(self)
        self._content_type, self._is_delimited, self._has_begun = "", False, False
        self._ended = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        try:
            await self._ended
        except BaseException:  # a cancelled request, too, leaves its connection unusable
            self.close()
            raise
        if not self._parser.should_keep_alive():
            self.close()

    def close(self) -> None:
        """Close the connection; what is under way on it is cancelled on the server."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail the request under way, unless this is how its answer ends."""
        if exc is None and self._is_open_ended():
            self._now_s = time.monotonic()
            self.on_message_complete()
        self._fail(ConnectionResetError("connection closed before the end"))

    def data_received(self, data: bytes) -> None:
        """Take what came; its moment is now."""
        self._now_s = time.monotonic()
        if self._ended is None or self._ended.done():  # bytes that nobody asked for
            self.close()
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._fail(ConnectionError("answer that is not HTTP"))

    def on_header(self, name: bytes, value: bytes) -> None:
        """Note what the body will be."""
        match name.lower():
            case b"content-type":
                self._content_type = value.decode("latin-1")
            case b"content-length" | b"transfer-encoding":
                self._is_delimited = True

    def on_headers_complete(self) -> None:
        """Tell the reply what comes."""
        self._has_begun = True
        self._reply.begin(self._parser.get_status_code(), self._content_type)

    def on_body(self, body: bytes) -> None:
        """Pass a piece of the body on."""
        self._reply.feed(body, self._now_s)

    def on_message_complete(self) -> None:
        """End the answer."""
        self._reply.end(self._now_s)
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(None)

    def _is_open_ended(self) -> bool:
        return self._ended is not None and not self._ended.done() and self._has_begun and not self._is_delimited

    def _fail(self, error: ConnectionError) -> None:
        if self._ended is not None and not self._ended.done():
            self._ended.set_exception(error)


class Connections:
    """All connections to one endpoint; a context manager closes them."""

    def __init__(self, endpoint: Endpoint) -> None:
        parts = urlsplit(endpoint.url)
        self._host, self._is_tls = parts.hostname or "", parts.scheme == "https"
        self._port = parts.port or (443 if self._is_tls else 80)
        self._idle: list[Connection] = []
        self._open: set[Connection] = set()
        key = "" if endpoint.api_key is None else f"Authorization: Bearer {endpoint.api_key}\r\n"
        self._head = (
            f"POST {parts.path}/chat/completions HTTP/1.1\r\nHost: {parts.netloc}\r\nUser-Agent: baton-bench\r\n"
            f"Accept: application/json, text/event-stream\r\nContent-Type: application/json\r\n{key}"
        ).encode()

    async def ask(self, body: bytes, reply: Reply) -> None:
        """Send a body over an idle connection or a new one, and return at the end of the answer. Raises OSError."""
        connection = await self._take()
        self._open.add(connection)
        try:
            await connection.ask(b"%bContent-Length: %d\r\n\r\n%b" % (self._head, len(body), body), reply)
        finally:
            self._open.discard(connection)
        if connection.is_open:
            connection.idle_since_s = time.monotonic()
            self._idle.append(connection)

    async def _take(self) -> Connection:
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open and time.monotonic() - connection.idle_since_s < MAX_IDLE_S:
                return connection
            connection.close()
        tls = ssl.create_default_context() if self._is_tls else None
        _, made = await asyncio.get_running_loop().create_connection(Connection, self._host, self._port, ssl=tls)
        return made

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, trace: TracebackType | None
    ) -> None:
        for connection in (*self._idle, *self._open):
            connection.close()
