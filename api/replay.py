"""An answer's events read from its log, whichever gateway it was asked at: what a broken stream goes on from."""

import time
from collections.abc import AsyncGenerator

from redis.asyncio import Redis

from api.departure import Departure
from shared import keys, wire
from shared.errors import CompletionNotFound, DeadlineExceeded, StreamInterrupted
from shared.events import Failed, Finished, JobEvent, Started, is_terminal
from shared.job import JobId

BLOCK_MS = 2000
"""A job that says nothing for this long is looked up."""


class AnswerLog:
    """Follows logs on behalf of clients that lost their stream; it only reads, and cancels nothing."""

    def __init__(self, redis: Redis, timeout_s: float, departure: Departure) -> None:
        self._redis = redis
        self._departure = departure
        self._timeout_s = timeout_s

    async def has(self, job_id: JobId) -> bool:
        """Whether the job waits or runs, or ended a short while ago."""
        return bool(await self._redis.exists(keys.payload(job_id), keys.log(job_id)))

    async def start(self, job_id: JobId) -> Started:
        """Return the event that every log begins with, waiting for it while the job is queued.

        Raises CompletionNotFound if there is no such answer, or none any more.
        """
        async for events in self.follow(job_id, after_seq=0):
            if isinstance(events[0], Started):
                return events[0]
            break
        raise CompletionNotFound(f"There is no answer {job_id}; it ended without a token, or too long ago.", param="id")

    async def follow(self, job_id: JobId, after_seq: int) -> AsyncGenerator[list[JobEvent]]:
        """Yield the events after this number up to the terminal one, all that are there at once."""
        last_seq, late_s = after_seq, time.monotonic() + self._timeout_s
        while time.monotonic() < late_s:
            self._departure.check()
            is_known = await self._redis.exists(keys.payload(job_id))
            events = await self._read(job_id, last_seq)
            if events:
                _check_gap(events, last_seq)
                last_seq = events[-1].seq
                yield events
                if is_terminal(events[-1]):
                    return
            elif not is_known:
                raise CompletionNotFound(
                    f"There is no answer {job_id} that goes on after event {last_seq}.", param="id"
                )
        raise DeadlineExceeded(f"The answer was not finished within {self._timeout_s:g} s.")

    async def ending(self, job_id: JobId) -> Finished | Failed | None:
        """Return the event that the log ends in; None if there is no log, or none that has ended."""
        newest = await self._redis.xrevrange(keys.log(job_id), count=1)
        events = [wire.decode_event(fields[b"e"]) for _, fields in newest]
        return next((event for event in events if isinstance(event, Finished | Failed)), None)

    async def read(self, job_id: JobId) -> list[JobEvent]:
        """Return all events that are there now, or raise StreamInterrupted."""
        entries = await self._redis.xrange(keys.log(job_id))
        events = [wire.decode_event(fields[b"e"]) for _, fields in entries]
        if events:
            _check_gap(events, 0)
        return events

    async def _read(self, job_id: JobId, last_seq: int) -> list[JobEvent]:
        """Wait a while for what follows; empty if nothing does."""
        found = await self._redis.xread({keys.log(job_id): f"{last_seq}-0"}, block=BLOCK_MS)
        return [wire.decode_event(fields[b"e"]) for _, entries in found for _, fields in entries]


def _check_gap(events: list[JobEvent], last_seq: int) -> None:
    if events[0].seq != last_seq + 1:
        raise StreamInterrupted(f"The events from {last_seq + 1} to {events[0].seq - 1} of this answer are lost.")
