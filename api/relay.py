"""Carries a job's stream to its client as server-sent events, and notices when the client leaves."""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterable
from contextlib import aclosing
from typing import Any, Protocol, TypeVar

from fastapi import Request
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope, Send

from api.gateway import gateway_of
from shared.errors import InternalError, JobError
from shared.events import JobEvent

logger = logging.getLogger(__name__)

_Result = TypeVar("_Result")


class Writer(Protocol):
    """Turns events into the frames of one kind of stream."""

    def opening(self) -> bytes:
        """The frames that come before any event."""
        ...

    def frames(self, events: Iterable[JobEvent]) -> bytes:
        """The frames of these events, ready to be sent in one piece."""
        ...

    def broken(self, error: JobError) -> bytes:
        """The last frame of a stream that broke."""
        ...


class ChatStream(EventSourceResponse):
    """The open stream of one job; however it ends, the job's events are closed with it."""

    def __init__(
        self,
        writer: Writer,
        first: list[JobEvent],
        batches: AsyncGenerator[list[JobEvent]],
        keep_alive_s: float,
        ahead: Callable[[], int | None] = lambda: None,
    ) -> None:
        """Keep-alive comments tell how many jobs are `ahead`, as long as any number is known."""
        frames = _frames(writer, first, batches)
        super().__init__(frames, ping=keep_alive_s, sep="\n", ping_message_factory=lambda: _KeepAlive(ahead()))
        self._batches = batches

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the stream."""
        async with aclosing(self._batches):
            await super().__call__(scope, receive, send)

    async def _send_with_timeout(self, send: Send, message: Message) -> None:
        """Send without the scope that watches a limit nobody set: it would cost a fifth of a chunk's time."""
        await send(message)


class _KeepAlive(ServerSentEvent):
    """A comment without an empty line behind it, which OpenAI's client takes for an event once it has heard an id."""

    def __init__(self, num_ahead: int | None) -> None:
        super().__init__(comment="ping" if num_ahead is None else f"queued, {num_ahead} ahead", sep="\n")

    def encode(self) -> bytes:
        """Return the comment's line."""
        return super().encode().rstrip() + b"\n"


async def _frames(
    writer: Writer, first: list[JobEvent], batches: AsyncIterator[list[JobEvent]]
) -> AsyncIterator[bytes]:
    try:
        if frames := writer.opening() + writer.frames(first):
            yield frames
        async for events in batches:
            if frames := writer.frames(events):
                yield frames
    except JobError as error:
        yield writer.broken(error)
    except Exception:  # the stream's outermost boundary: a client must never take a break for an end
        logger.exception("a stream broke")
        yield writer.broken(InternalError())


async def while_connected(request: Request, answer: Coroutine[Any, Any, _Result]) -> _Result:
    """Await the answer; if the client or the gateway leaves first, cancel it.

    Raises ClientDisconnect or ServerStopping then.
    """
    departure = gateway_of(request).departure
    working, leaving = asyncio.ensure_future(answer), asyncio.ensure_future(_left(request))
    try:
        with departure.watched(working.cancel):
            await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if working.cancelled():
            departure.check()
        if working.done():
            return working.result()
        raise ClientDisconnect
    finally:
        working.cancel()
        leaving.cancel()
        await asyncio.wait({working, leaving})


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
