"""What the client's tests talk to: a gateway with the golden model and two fake ones, and servers of few words."""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from baton.embedded import EmbeddedRedis
from tests.acceptance.conftest import MODEL, Stack
from tests.acceptance.conftest import media_url as media_url  # a fixture here as well
from tests.baton.canned import CannedServer

API_KEY = "a-secret"
SLOW_ITL_MS = 50


@pytest.fixture(scope="session")
def served_redis() -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis() as server:
        yield server


@pytest.fixture(scope="session")
def served(served_redis: EmbeddedRedis) -> Iterator[Stack]:
    """The golden model, one that repeats what is said, and one that does so slowly and for one client at a time."""
    stack = Stack(served_redis.url)
    stack.start_gateway()
    stack.start_internvl2()
    stack.start("worker", "--model_type", "fake")
    slow = ("--served_model_name", "slow", "--max_num_seqs", "1", "--fake_itl_ms", str(SLOW_ITL_MS))
    stack.start("worker", "--model_type", "fake", *slow)
    stack.wait_for_models(MODEL, "fake", "slow")
    yield stack
    stack.stop()


@pytest.fixture(scope="session")
def api_url(served: Stack) -> str:
    return f"{served.url}/v1"


@pytest.fixture(scope="session")
def locked_url(served: Stack, served_redis: EmbeddedRedis) -> Iterator[str]:
    """The same models behind a gateway that asks for a key."""
    stack = Stack(served_redis.url)
    stack.start_gateway("--api_key", API_KEY)
    stack.wait_for_models("fake", api_key=API_KEY)
    yield f"{stack.url}/v1"
    stack.stop()


@pytest.fixture
def canned() -> Iterator[Callable[..., CannedServer]]:
    """Start servers that always answer the same."""
    with ExitStack() as running:

        def start(*arguments: object, **options: object) -> CannedServer:
            server = running.enter_context(CannedServer(*arguments, **options))
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
            running.callback(server.shutdown)
            return server

        yield start
