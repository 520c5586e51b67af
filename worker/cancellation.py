"""Hears which jobs to drop: their clients have left."""

import asyncio
import logging
from collections.abc import Callable

from redis.asyncio import Redis
from redis.exceptions import RedisError

from shared import keys
from shared.job import JobId

logger = logging.getLogger(__name__)

RETRY_PAUSE_S = 0.5


async def listen_for_cancels(redis: Redis, worker_id: str, cancel: Callable[[JobId], None]) -> None:
    """Call `cancel` for every job named on this worker's channel, for ever."""
    while True:
        try:
            async with redis.pubsub(ignore_subscribe_messages=True) as pubsub:
                await pubsub.subscribe(keys.cancel(worker_id))
                async for message in pubsub.listen():
                    cancel(JobId(message["data"].decode()))
        except RedisError as error:
            logger.warning("listening for cancels waits for Redis: %s", error)
            await asyncio.sleep(RETRY_PAUSE_S)
