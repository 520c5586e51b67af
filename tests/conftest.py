"""What every test may stand on: a real Redis server, on a port of its own."""

import signal
from collections.abc import AsyncIterator, Iterator

import pytest
from redis.asyncio import Redis

from baton.embedded import EmbeddedRedis


@pytest.fixture(scope="session", autouse=True)
def _interrupts_reach_children() -> None:
    """A suite started in the background ignores Ctrl-C, and would hand that down to the processes it interrupts."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def redis_server() -> Iterator[EmbeddedRedis]:
    """One Redis server for the session; tests keep apart by model and gateway names."""
    with EmbeddedRedis() as server:
        yield server


@pytest.fixture
async def redis(redis_server: EmbeddedRedis) -> AsyncIterator[Redis]:
    """A client of the session's Redis, emptied first."""
    client: Redis = Redis.from_url(redis_server.url)
    await client.flushall()
    yield client
    await client.aclose()
