"""Several jobs of one request as one stream: what ends one badly ends all."""

import asyncio
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing, suppress

from api.completion import failure
from shared.errors import Cancelled, JobError, ServerStopping
from shared.events import Failed, Finished, FinishReason, JobEvent

Events = list[JobEvent]


async def together(streams: Sequence[AsyncGenerator[Events]]) -> AsyncGenerator[Events]:
    """Yield what the streams say as they say it, until all have ended; leaving early closes every one.

    Raises what the first of them ends in that has no answer.
    """
    pending = {_next_of(stream): stream for stream in streams}
    try:
        while pending:
            done, _ = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                stream = pending.pop(task)
                with suppress(StopAsyncIteration):
                    events = task.result()
                    pending[_next_of(stream)] = stream
                    _check(events)
                    yield events
    except ServerStopping:  # told to all: who is closed before it has heard that cancels its job
        await asyncio.gather(*(_run_out(task, stream) for task, stream in pending.items()))
        pending.clear()
        raise
    finally:
        for task in pending:
            task.cancel()
        if pending:
            await asyncio.wait(pending)
        for stream in streams:
            await stream.aclose()


async def in_turn(streams: Iterable[AsyncGenerator[Events]]) -> AsyncGenerator[Events]:
    """Yield what one stream says after the other, each begun when the one before it has ended."""
    for stream in streams:
        async with aclosing(stream):
            async for events in stream:
                yield events


async def _run_out(task: asyncio.Task[Events], stream: AsyncGenerator[Events]) -> None:
    with suppress(JobError, StopAsyncIteration):
        await task
        async for _ in stream:
            pass


def _next_of(stream: AsyncGenerator[Events]) -> asyncio.Task[Events]:
    return asyncio.ensure_future(_take(stream))


async def _take(stream: AsyncGenerator[Events]) -> Events:
    return await anext(stream)


def _check(events: Events) -> None:
    match events[-1] if events else None:
        case Failed() as event:
            raise failure(event)
        case Finished(reason=FinishReason.CANCELLED):
            raise Cancelled("The answer was cancelled.")
