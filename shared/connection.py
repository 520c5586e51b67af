"""One way to reach Redis."""

import asyncio
import logging

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.exceptions import ConnectionError, TimeoutError

from shared.settings import Settings

logger = logging.getLogger(__name__)

RETRY_PAUSE_S = 1.0


def open_redis(settings: Settings, num_retries: int = 5) -> Redis:
    """Return a client that tries a command again after a lost connection; whoever opens it closes it.

    The pauses grow to a second each: five retries give up after about two seconds.
    """
    client: Redis = Redis.from_url(
        settings.redis_url.get_secret_value(),
        retry=Retry(ExponentialBackoff(cap=1.0, base=0.05), retries=num_retries),
        retry_on_error=[ConnectionError, TimeoutError],
        health_check_interval=30,
    )
    return client


async def wait_for_redis(redis: Redis) -> None:
    """Return once Redis answers; a process that starts before Redis does waits for it."""
    while True:
        try:
            await redis.ping()
        except (ConnectionError, TimeoutError) as error:
            logger.warning("waiting for Redis: %s", error)
            await asyncio.sleep(RETRY_PAUSE_S)
        else:
            return
