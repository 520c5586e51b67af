"""A TCP proxy that cuts its connections in the middle of what they carry."""

import asyncio
import contextlib
import random
import ssl
from dataclasses import dataclass


@dataclass(eq=False)
class Wire:
    """One connection: what may still pass it, in bytes of both directions together; None is without end."""

    writers: tuple[asyncio.StreamWriter, ...]
    num_bytes_left: int | None = None


class Proxy:
    """Stands before a server's port, and speaks TLS for it if it has a certificate; whoever opens it closes it."""

    def __init__(self, target_port: int, certificate: ssl.SSLContext | None = None) -> None:
        self._target_port = target_port
        self._certificate = certificate
        self._wires: set[Wire] = set()
        self.num_cut = 0

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", 0, ssl=self._certificate)
        self.port = self._server.sockets[0].getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        return self

    async def __aexit__(self, *raised: object) -> None:
        self._server.close()
        for side in (side for wire in self._wires for side in wire.writers):
            side.transport.abort()

    def cut_soon(self, rng: random.Random, max_bytes: int) -> None:
        """Cut every open connection after so many bytes, each at a place of its own."""
        for wire in self._wires:
            wire.num_bytes_left = rng.randint(1, max_bytes)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
        except OSError:
            writer.transport.abort()
            return
        wire = Wire((writer, far_writer))
        self._wires.add(wire)
        try:
            await asyncio.gather(self._pump(wire, reader, far_writer), self._pump(wire, far_reader, writer))
        finally:
            self._wires.discard(wire)

    async def _pump(self, wire: Wire, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while content := await reader.read(65536):
                passed = content if wire.num_bytes_left is None else content[: wire.num_bytes_left]
                writer.write(passed)
                await writer.drain()
                if wire.num_bytes_left is not None:
                    wire.num_bytes_left -= len(passed)
                    if wire.num_bytes_left == 0:
                        self.num_cut += 1
                        break
        for side in wire.writers:
            side.close()
