"""How many jobs stand before one that waits: read from Redis once a second for all of a gateway's streams."""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, contextmanager

from redis.asyncio import Redis
from redis.exceptions import RedisError

from api.vigil import vigil
from shared import keys
from shared.job import ChatJob, JobId

logger = logging.getLogger(__name__)

INTERVAL_S = 1.0


class QueuePositions:
    """Asks nothing while nobody waits; one range a model and tick else, however many wait."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._watched: dict[JobId, str] = {}
        self._ahead: dict[JobId, int] = {}
        self._is_watched = asyncio.Event()

    def ahead(self, job_id: JobId) -> int | None:
        """How many jobs a worker takes before this one, as of the last tick; None if it isn't known to wait."""
        return self._ahead.get(job_id)

    @contextmanager
    def watching(self, job: ChatJob) -> Iterator[None]:
        """Follow the job until left."""
        self._watched[job.id] = job.model
        self._is_watched.set()
        try:
            yield
        finally:
            del self._watched[job.id]
            self._ahead.pop(job.id, None)

    def running(self) -> AbstractAsyncContextManager[None]:
        """Follow in the background until left."""
        return vigil(self._follow(), "positions")

    async def _follow(self) -> None:
        while True:
            await self._is_watched.wait()
            try:
                await self._read()
            except RedisError as error:
                logger.debug("positions wait for Redis: %s", error)
            await asyncio.sleep(INTERVAL_S)
            if not self._watched:
                self._is_watched.clear()

    async def _read(self) -> None:
        ahead: dict[JobId, int] = {}
        for model in set(self._watched.values()):
            for position, member in enumerate(await self._redis.zrange(keys.queue(model), 0, -1)):
                ahead[JobId(member.decode())] = position
        self._ahead = {job_id: ahead[job_id] for job_id in self._watched if job_id in ahead}
