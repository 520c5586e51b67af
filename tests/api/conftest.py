"""A real gateway process, a stand-in for its worker, and the official client."""

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest
from openai import AsyncOpenAI
from redis.asyncio import Redis

from baton.embedded import EmbeddedRedis, free_port
from tests.api.standin import StandIn

MODEL = "parrot"


class GatewayProcess:
    """`python -m api`, as anybody would start it."""

    def __init__(self, redis_url: str, **options: object) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        arguments = [f"--{name}={value}" for name, value in {"port": self.port, "drain_notice_s": 0, **options}.items()]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "api", *arguments], env=os.environ | {"BATON_REDIS_URL": redis_url}
        )
        wait_for_port(self.port)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(15)


def wait_for_port(port: int, timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            assert time.monotonic() < deadline, "the gateway did not start"
            time.sleep(0.05)
        else:
            return


@pytest.fixture(scope="session")
def gateways(redis_server: EmbeddedRedis) -> Iterator[Callable[..., GatewayProcess]]:
    """Start a gateway with these options; the same options share one process."""
    running: dict[tuple[tuple[str, object], ...], GatewayProcess] = {}

    def start(**options: object) -> GatewayProcess:
        key = tuple(sorted(options.items()))
        if key not in running or running[key].process.poll() is not None:
            running[key] = GatewayProcess(redis_server.url, **options)
        return running[key]

    yield start
    for gateway in running.values():
        gateway.stop()


@pytest.fixture(scope="session")
def gateway(gateways) -> GatewayProcess:
    return gateways(allow_private_media_hosts="true", first_event_wait_s=1, keep_alive_s=0.2)


@pytest.fixture(scope="session")
async def broker(redis_server: EmbeddedRedis) -> AsyncIterator[Redis]:
    """A client of the session's Redis that leaves what is there."""
    async with Redis.from_url(redis_server.url) as client:
        yield client


@pytest.fixture
async def worker(broker: Redis) -> StandIn:
    standin = StandIn(broker, MODEL)
    await standin.beat()
    await broker.delete(f"queue:{MODEL}")
    return standin


@pytest.fixture
async def client(gateway: GatewayProcess, worker: StandIn) -> AsyncIterator[AsyncOpenAI]:
    async with connect(gateway) as opened:
        await until(lambda: served(opened))
        yield opened


@pytest.fixture
async def other(gateways, client) -> AsyncIterator[AsyncOpenAI]:
    """The client of another gateway."""
    async with connect(gateways(keep_alive_s=0.2, response_ttl_s=100)) as opened:
        yield opened


def connect(gateway: GatewayProcess, api_key: str = "none") -> AsyncOpenAI:
    return AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=api_key, max_retries=0, timeout=20)


async def served(client: AsyncOpenAI) -> bool:
    return any(model.id == MODEL for model in (await client.models.list()).data)


async def until(condition: Callable[[], Awaitable[bool]], timeout_s: float = 20) -> None:
    async with asyncio.timeout(timeout_s):
        while not await condition():
            await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def asking(awaitable):
    """A request under way; it has ended when the block is left."""
    task = asyncio.ensure_future(awaitable)
    try:
        yield task
    finally:
        if not task.done():
            task.cancel()
        await asyncio.wait({task})
