"""One pub/sub connection per gateway process, whatever the number of requests: events in, mailboxes out."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.exceptions import ConnectionError, RedisError

from api.mailbox import Mailbox, Requeue
from api.vigil import vigil
from shared import keys, wire
from shared.job import JobId

logger = logging.getLogger(__name__)

SILENCE_S = 5.0
"""A connection silent for this long is pinged; twice this long, and it is given up."""
DOUBT_S = 5.0
"""A job that says nothing from one look to the next is looked up in its log. One clock for all jobs: a timer for each
wait of each stream would cost a tenth of a chunk's time."""
MAX_PAUSE_S = 1.0
"""Longest pause between attempts to reconnect."""


class EventSubscriber:
    """Hears the events of all this gateway's jobs, and hands each job its own.

    Pub/sub forgets: after every (re)connect each open mailbox reads its job's log.
    """

    def __init__(self, redis: Redis, gateway: str) -> None:
        self._redis = redis
        self._channel = keys.events(gateway)
        self._mailboxes: dict[JobId, Mailbox] = {}

    @contextmanager
    def open(self, job_id: JobId, requeue: Requeue, *, joins: bool = True) -> Iterator[Mailbox]:
        """Collect the job's events from now on; to be entered before the job is enqueued."""
        mailbox = self._mailboxes[job_id] = Mailbox(job_id, self._redis, requeue, joins=joins)
        try:
            yield mailbox
        finally:
            del self._mailboxes[job_id]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Listen in the background, through any loss of Redis, until left."""
        async with vigil(self._listen_for_ever(), "subscriber"), vigil(self._doubt_for_ever(), "doubts"):
            yield

    async def _listen_for_ever(self) -> None:
        pause_s = 0.05
        while True:
            try:
                async with self._redis.pubsub() as pubsub:
                    await pubsub.subscribe(self._channel)
                    pause_s = 0.05
                    await self._listen(pubsub)
            except (RedisError, OSError) as error:
                logger.warning("lost the event channel, connecting again: %s", error)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, MAX_PAUSE_S)

    async def _doubt_for_ever(self) -> None:
        while True:
            await asyncio.sleep(DOUBT_S)
            for mailbox in self._mailboxes.values():
                mailbox.doubt()

    async def _listen(self, pubsub: PubSub) -> None:
        is_pinged = False
        while True:
            message = await pubsub.get_message(timeout=SILENCE_S)
            if message is None:
                if is_pinged:
                    raise ConnectionError("no sign of life")
                await pubsub.ping()
                is_pinged = True
                continue
            is_pinged = False
            self._receive(message)

    def _receive(self, message: Mapping[str, Any]) -> None:
        match message["type"]:
            case "message":
                self._hand_out(message["data"])
            case "subscribe":
                for mailbox in self._mailboxes.values():
                    mailbox.reread()

    def _hand_out(self, payload: bytes) -> None:
        try:
            events = wire.decode_events(payload)
        except wire.WireError as error:
            logger.warning("ignoring a message: %s", error)
            return
        mailboxes = self._mailboxes
        for event in events:
            if (mailbox := mailboxes.get(event.job_id)) is not None:
                mailbox.put(event)
