"""One way to reach Redis."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.exceptions import AuthenticationError, ConnectionError, RedisError, TimeoutError

from shared.address import open_pool
from shared.settings import Settings

logger = logging.getLogger(__name__)

RETRY_PAUSE_S = 1.0


class _ToldRetry(Retry):
    """redis-py's own, that tells of each failed attempt, and takes a wrong password for what it is."""

    def __init__(self, num_retries: int, tell: Callable[[RedisError], None]) -> None:
        super().__init__(ExponentialBackoff(cap=1.0, base=0.05), retries=num_retries)
        self._tell = tell

    async def call_with_retry(self, do: Callable[[], Awaitable[Any]], fail: Callable[[RedisError], Any]) -> Any:
        """Try until it works, or too often did not."""

        async def told(error: RedisError) -> Any:
            self._tell(error)
            await fail(error)
            if isinstance(error, AuthenticationError):
                raise error

        return await super().call_with_retry(do, told)


class _Complaint:
    """Says that Redis is away, at most once a second, however many commands wait for it."""

    def __init__(self) -> None:
        self._said_s = float("-inf")

    def say(self, error: RedisError) -> None:
        if time.monotonic() > self._said_s + RETRY_PAUSE_S:
            self._said_s = time.monotonic()
            logger.warning("Redis is away, trying again: %s", error)


def open_redis(settings: Settings, num_retries: int = 5, on_retry: Callable[[], None] = lambda: None) -> Redis:
    """Return a client that tries a command again after a lost connection; whoever opens it closes it.

    The pauses grow to a second each: five retries give up after about two seconds. `on_retry` hears of each one.
    """
    complaint = _Complaint()

    def tell(error: RedisError) -> None:  # a function: each connection copies all else
        on_retry()
        complaint.say(error)

    pool = open_pool(
        settings.redis_url.get_secret_value(),
        retry=_ToldRetry(num_retries, tell),
        retry_on_error=[ConnectionError, TimeoutError],
        health_check_interval=30,
    )
    client: Redis = Redis.from_pool(pool)
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
