"""What the fleet knows of this worker: said every two seconds, stale after six."""

import asyncio
import logging
import time
from collections import deque

import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError

from shared import keys, wire
from shared.fleet import WorkerInfo, WorkerState

logger = logging.getLogger(__name__)

INTERVAL_S = 2.0
STALE_S = 6.0
RATE_WINDOW_S = 30.0
REMEMBERED_S = 24 * 3600
"""A dead worker's model stays a known model for a day."""


class Heartbeat:
    """Owns the worker's entry; whoever changes what it says calls `say`."""

    def __init__(self, redis: Redis, info: WorkerInfo) -> None:
        self._redis = redis
        self.info = info
        self._ended_s: deque[float] = deque()

    async def forget_the_dead(self) -> None:
        """Drop workers that have been silent for a day from the fleet."""
        await self._redis.zremrangebyscore(keys.WORKERS, "-inf", time.time() - REMEMBERED_S)

    def update(self, **changes: object) -> None:
        """Change what the next heartbeat says."""
        self.info = msgspec.structs.replace(self.info, **changes)

    def count(self) -> None:
        """Note that a job ended."""
        self._ended_s.append(time.monotonic())

    def _rate(self) -> float:
        while self._ended_s and self._ended_s[0] < time.monotonic() - RATE_WINDOW_S:
            self._ended_s.popleft()
        return len(self._ended_s) / RATE_WINDOW_S

    async def say(self) -> None:
        """Say it now; if Redis is away, the next beat says it."""
        await self._write(stale_s=time.time() + STALE_S)

    async def run(self) -> None:
        """Say it for ever, whatever Redis does meanwhile."""
        while True:
            self.update(jobs_per_s=self._rate())
            await self.say()
            await asyncio.sleep(INTERVAL_S)

    async def stop(self) -> None:
        """Say that this worker is gone, instead of letting the heartbeat go stale."""
        self.update(state=WorkerState.DRAINING)
        await self._write(stale_s=time.time())

    async def _write(self, stale_s: float) -> None:
        try:
            async with self._redis.pipeline(transaction=False) as pipeline:
                pipeline.set(keys.worker(self.info.id), wire.encode(self.info), ex=REMEMBERED_S)
                pipeline.zadd(keys.WORKERS, {self.info.id: stale_s})
                await pipeline.execute()
        except RedisError as error:
            logger.warning("heartbeat waits for Redis: %s", error)
