"""The process's server: uvicorn's, with signals that mean what an operator expects of them."""

import asyncio
import math
import os
import signal
import socket
from types import FrameType

import uvicorn

from api.departure import Departure
from api.settings import ApiSettings

CUT_MARGIN_S = 5.0
"""What answers that were cut off may take to say so."""
KILLED_STATUS = 128 + signal.SIGKILL
"""What a shell would say of a process that was not allowed to end by itself."""


class Server(uvicorn.Server):
    """The first signal lets open answers end, the second one cuts them off, the third one ends the process here.

    SIGTERM comes from whoever also tells load balancers, which takes them a while: until `drain_notice_s` have
    passed, new requests are still answered. SIGINT comes from a person, and nobody needs to be told.
    """

    def __init__(self, config: uvicorn.Config, settings: ApiSettings, departure: Departure) -> None:
        config.timeout_graceful_shutdown = math.ceil(settings.drain_timeout_s + CUT_MARGIN_S)
        super().__init__(config)
        self._settings = settings
        self._departure = departure
        self._num_signals = 0
        self._loop: asyncio.AbstractEventLoop | None = None

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until told to stop."""
        self._loop = asyncio.get_running_loop()
        await super().serve(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Become one degree more urgent."""
        self._num_signals += 1
        if self._num_signals > 2 or self._loop is None:
            os._exit(KILLED_STATUS)
        self._loop.call_soon_threadsafe(self._hurry if self._num_signals == 2 else self._leave, sig)

    def _leave(self, sig: int) -> None:
        assert self._loop is not None
        self._captured_signals.append(sig)
        self._departure.announce()
        notice_s = 0.0 if sig == signal.SIGINT else self._settings.drain_notice_s
        self._loop.call_later(notice_s, self._close)
        self._loop.call_later(notice_s + self._settings.drain_timeout_s, self._departure.cut)

    def _hurry(self, sig: int) -> None:
        self._close()
        self._departure.cut()

    def _close(self) -> None:
        self.should_exit = True


def listening_socket(config: uvicorn.Config, send_timeout_s: float) -> socket.socket:
    """Return the socket to serve on; the kernel drops a client that takes nothing for so long, where it can."""
    listening = config.bind_socket()
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux; connections inherit it
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, math.ceil(send_timeout_s * 1000))
    return listening
