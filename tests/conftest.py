"""What every test may stand on: a real Redis server, on a port of its own."""

import signal
from collections.abc import AsyncIterator, Iterator

import pytest
from redis.asyncio import Redis

from baton.embedded import EmbeddedRedis
from shared.garbage import lasting
from tests.schedule import Schedule, place


def pytest_addoption(parser: pytest.Parser) -> None:
    """How long the faults are played; `make faults` and `make soak` ask for more."""
    parser.addoption("--rounds", type=int, default=1, help="how often each fault strikes")
    parser.addoption("--soak_s", type=float, default=6.0, help="how long faults follow each other")


def pytest_xdist_make_scheduler(config: pytest.Config, log) -> Schedule | None:
    """Hand tests out by the servers they share, where they would be handed out by files."""
    return Schedule(config, log) if config.getvalue("dist") == "loadfile" else None


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Import the tests, and torch and transformers with them, without a search for garbage, which there is none of."""
    with lasting():
        return (yield)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put them into the order in which they are handed out."""
    items.sort(key=place)


@pytest.fixture(scope="session", autouse=True)
def _interrupts_reach_children() -> None:
    """A suite started in the background ignores Ctrl-C, and would hand that down to the processes it interrupts."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _nobody_is_trusted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test talks to strangers, and each client that reads the certificates of the world costs 40 ms."""
    with pytest.MonkeyPatch.context() as environment:
        environment.delenv("SSL_CERT_FILE", raising=False)
        environment.setenv("SSL_CERT_DIR", str(tmp_path_factory.mktemp("nobody")))
        yield


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
