"""One job's events on their way to its client: in order, each once, gaps filled from the job's log."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator
from itertools import chain, groupby

import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError

from shared import keys, wire
from shared.errors import JobError, StreamInterrupted
from shared.events import JobEvent, TextDelta, is_terminal
from shared.job import JobId
from shared.progress import Progress
from shared.tally import Tally

MAX_WAITING = 64
"""Events that may wait for a slow reader before their text is joined."""
REDIS_PAUSE_S = 0.5
"""Pause before the log is read again when Redis is away."""

Requeue = Callable[[Progress], Awaitable[None]]
"""Queues a forgotten job again, from where its client stands."""


class Mailbox:
    """Filled by the subscriber, emptied by the one reader of the job's stream."""

    def __init__(self, job_id: JobId, redis: Redis, requeue: Requeue, *, joins: bool = True) -> None:
        self._joins = joins
        self._job_id = job_id
        self._redis = redis
        self._requeue = requeue
        self._tally = Tally(Progress())
        self._waiting: list[JobEvent] = []
        self._ready = asyncio.Event()
        self._last_seq = 0
        self._newest_seq = 0
        self._doubted_seq: int | None = None
        self._may_miss = False
        self._error: JobError | None = None

    def put(self, event: JobEvent) -> None:
        """Take an event as it was heard; repeated ones are dropped, one that comes too early marks a gap."""
        if event.seq == self._last_seq + 1:
            self._append(event)
        elif event.seq > self._last_seq:
            self._newest_seq = max(self._newest_seq, event.seq)
            self.reread()

    def doubt(self) -> None:
        """Let the reader look into the log if nothing came since the last doubt: the end may not have been heard."""
        if self._last_seq == self._doubted_seq:
            self.reread()
        self._doubted_seq = self._last_seq

    def reread(self) -> None:
        """Let the reader look into the log: something may not have been heard."""
        self._may_miss = True
        self._ready.set()

    def fail(self, error: JobError) -> None:
        """End the stream with this error, after what is waiting already."""
        self._error = error
        self._ready.set()

    async def take(self) -> list[JobEvent]:
        """Wait for events and take all that are there.

        Raises StreamInterrupted if events are lost, and whatever `fail` was given.
        """
        while not self._waiting:
            if self._error is not None:
                raise self._error
            if self._may_miss:
                await self._catch_up()
            else:
                self._ready.clear()
                await self._ready.wait()
        taken, self._waiting = self._waiting, []
        return taken

    def _append(self, event: JobEvent) -> None:
        self._last_seq = event.seq
        self._tally.add(event)
        self._waiting.append(event)
        if self._joins and len(self._waiting) > MAX_WAITING:
            self._waiting = list(_joined(self._waiting))
        self._ready.set()

    async def _catch_up(self) -> None:
        newest_seq = self._newest_seq
        try:
            if await self._read_log():
                await self._requeue(self._tally.progress())
                self._newest_seq = self._last_seq
                return
        except RedisError:
            self._may_miss = True
            await asyncio.sleep(REDIS_PAUSE_S)
            return
        if self._last_seq < newest_seq:
            raise StreamInterrupted("Part of the answer was lost on its way; please ask again.")

    async def _read_log(self) -> bool:
        """Take what follows the last event; return whether Redis has forgotten the job.

        An open job has its payload, or a log that ends. A read that is cut short is to be done again.
        """
        entries = None
        self._may_miss = False
        try:
            is_known = await self._redis.exists(keys.payload(self._job_id))
            entries = await self._redis.xrange(keys.log(self._job_id), min=f"{self._last_seq + 1}-0")
        finally:
            self._may_miss = self._may_miss or entries is None
        for _, fields in entries:
            event = self._decode(fields[b"e"])
            if event.seq == self._last_seq + 1:
                self._append(event)
        return not is_known and not (self._waiting and is_terminal(self._waiting[-1]))

    def _decode(self, encoded: bytes) -> JobEvent:
        try:
            return wire.decode_event(encoded)
        except wire.WireError as error:
            raise StreamInterrupted("Part of the answer can't be read by this server.") from error


def _joined(events: Iterable[JobEvent]) -> Iterator[JobEvent]:
    """Join deltas between which nothing else was said into one for each choice, at the number of its last one."""
    for is_text, group in groupby(events, lambda event: isinstance(event, TextDelta)):
        if not is_text:
            yield from group
            continue
        by_choice: dict[int, list[TextDelta]] = {}
        for event in group:
            assert isinstance(event, TextDelta)
            by_choice.setdefault(event.index, []).append(event)
        yield from map(_merged, by_choice.values())


def _merged(deltas: list[TextDelta]) -> TextDelta:
    return msgspec.structs.replace(
        deltas[-1],
        text="".join(delta.text for delta in deltas),
        token_ids=tuple(chain.from_iterable(delta.token_ids for delta in deltas)),
        logprobs=tuple(chain.from_iterable(delta.logprobs for delta in deltas)),
    )
