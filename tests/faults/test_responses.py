"""A response in the background loses its gateway and its worker, and is read to its end elsewhere."""

import signal
import time

import pytest
from openai import OpenAI
from openai.types.responses import ResponseCreatedEvent, ResponseTextDeltaEvent
from redis import Redis

from baton.embedded import EmbeddedRedis
from shared import keys
from tests.acceptance.conftest import Stack

NUM_TOKENS = 120
EXPECTED = " ".join("abc"[n % 3] for n in range(NUM_TOKENS))
ASKED = {"model": "fake", "input": "a b c", "max_output_tokens": NUM_TOKENS, "background": True}


@pytest.fixture(scope="module")
def stack():
    with EmbeddedRedis() as server:
        stack = Stack(server.url)
        stack.start_gateway()
        stack.worker = start_worker(stack)
        stack.wait_for_models("fake")
        yield stack
        stack.stop()


def start_worker(stack: Stack):
    return stack.start("worker", "--model_type", "fake", "--fake_itl_ms", "20", "--lease_s", "1")


@pytest.fixture
def client(stack) -> OpenAI:
    return stack.client()


class Reader:
    """A client that remembers where its stream broke."""

    def __init__(self) -> None:
        self.id = ""
        self.text = ""
        self.last = None

    def read(self, events, until_tokens: int | None = None) -> None:
        for event in events:
            assert self.last is None or event.sequence_number > self.last.sequence_number
            self.last = event
            if isinstance(event, ResponseCreatedEvent):
                self.id = event.response.id
            if isinstance(event, ResponseTextDeltaEvent):
                self.text += event.delta
            if until_tokens is not None and len(self.text.split()) >= until_tokens:
                return


def test_stream_goes_on_without_its_gateway_and_its_worker(stack, client):
    reader = Reader()
    with client.responses.create(**ASKED, stream=True) as stream:
        reader.read(stream, until_tokens=20)
        stack.kill_gateway()
        stack.end(stack.worker, signal.SIGKILL)

    stack.start_gateway()
    stack.worker = start_worker(stack)
    reader.read(client.responses.retrieve(reader.id, stream=True, starting_after=reader.last.sequence_number))

    assert reader.text == EXPECTED
    assert reader.last.response.status == "incomplete"
    assert reader.last.response == client.responses.retrieve(reader.id)


def test_response_is_written_on_when_its_gateway_stops(stack, client):
    response = client.responses.create(**ASKED)

    stack.stop_gateway()
    stack.start_gateway()
    reader = Reader()
    reader.read(client.responses.retrieve(response.id, stream=True))

    assert reader.text == reader.last.response.output_text == EXPECTED
    assert reader.last.response.background


def test_cancelled_response_frees_its_worker(stack, client):
    asked = ASKED | {"max_output_tokens": 2000}
    reader = Reader()
    with client.responses.create(**asked, stream=True) as stream:
        reader.read(stream, until_tokens=5)

    cancelled = client.responses.cancel(reader.id)

    assert cancelled.status == client.responses.retrieve(reader.id).status == "cancelled"
    assert "a b c a b" in cancelled.output_text
    with Redis.from_url(stack.redis_url) as redis:
        assert not redis.exists(keys.payload(reader.id), keys.lease(reader.id))
        assert 3600 < redis.ttl(keys.log(reader.id)) <= 3600 + 600 + 60
        while not redis.hexists(keys.KEPT_BYTES, keys.log(reader.id)):  # the test's own limit ends it
            time.sleep(0.05)
