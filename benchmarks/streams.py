"""Many clients of endless answers in one event loop, so light that they hardly count beside what they measure."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import cycle, pairwise
from urllib.parse import urlsplit

MAX_TOKENS = 100_000
WORDS = "the quick brown fox jumps over the lazy dog"
FILL_TIMEOUT_S = 120.0


def _request() -> bytes:
    messages = [{"role": "user", "content": WORDS}]
    body = json.dumps({"model": "fake", "stream": True, "max_tokens": MAX_TOKENS, "messages": messages}).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    return head + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)


REQUEST = _request()


class Stream(asyncio.Protocol):
    """One client: counts chunks, and remembers when each came if it is to."""

    def __init__(self, *, is_timed: bool) -> None:
        self.num_chunks = 0
        self.times_s: list[float] | None = [] if is_timed else None
        self._transport: asyncio.BaseTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(REQUEST)

    def data_received(self, data: bytes) -> None:
        """Count the chunks."""
        number = data.count(b"data: {")
        self.num_chunks += number
        if self.times_s is not None:
            self.times_s += [time.monotonic()] * number

    def close(self) -> None:
        """Leave; the server cancels the answer."""
        if self._transport is not None:
            self._transport.close()


class Streams:
    """Open streams, spread over gateways."""

    def __init__(self, streams: Sequence[Stream]) -> None:
        self._streams = streams

    @property
    def num_chunks(self) -> int:
        """Chunks that came so far."""
        return sum(stream.num_chunks for stream in self._streams)

    @property
    def num_running(self) -> int:
        """Streams that have their first token; the first chunk has none."""
        return sum(stream.num_chunks > 1 for stream in self._streams)

    async def rate(self, seconds: float) -> float:
        """Return chunks/s over the next so many seconds."""
        began_s, before = time.monotonic(), self.num_chunks
        await asyncio.sleep(seconds)
        return (self.num_chunks - before) / (time.monotonic() - began_s)

    async def gaps_s(self, seconds: float) -> list[float]:
        """Return the times between the chunks of each timed stream over the next so many seconds, sorted."""
        timed = [stream.times_s for stream in self._streams if stream.times_s is not None]
        for times_s in timed:
            times_s.clear()
        await asyncio.sleep(seconds)
        return sorted(later - earlier for times_s in timed for earlier, later in pairwise(times_s))


@asynccontextmanager
async def open_streams(urls: Sequence[str], number: int, num_timed: int = 0) -> AsyncIterator[Streams]:
    """Open so many streams and wait until each has its first token, or for two minutes; leaving cancels them."""
    streams = [Stream(is_timed=index < num_timed) for index in range(number)]
    opened = Streams(streams)
    try:
        for stream, url in zip(streams, cycle(urls), strict=False):
            parts = urlsplit(url)
            await asyncio.get_running_loop().create_connection(lambda one=stream: one, parts.hostname, parts.port)
        with suppress(TimeoutError):
            async with asyncio.timeout(FILL_TIMEOUT_S):
                while opened.num_running < number:
                    await asyncio.sleep(0.1)
        yield opened
    finally:
        for stream in streams:
            stream.close()
