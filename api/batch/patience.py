"""Waiting for Redis as long as it takes: what a batch does where a request would be refused."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from redis.exceptions import RedisError

logger = logging.getLogger(__name__)

PAUSE_S = 0.5

_Answer = TypeVar("_Answer")


async def patiently(call: Callable[[], Awaitable[_Answer]]) -> _Answer:
    """Call until Redis takes it."""
    while True:
        try:
            return await call()
        except RedisError as error:
            logger.warning("a batch waits for Redis: %s", error)
            await asyncio.sleep(PAUSE_S)
