"""Redis goes away, comes back with its data, or comes back empty: no open request notices more than a pause."""

import concurrent.futures
import threading
import time

import pytest

from tests.acceptance.conftest import Stack
from tests.faults.server import FragileRedis

WORDS = ["the", "quick", "brown", "fox", "jumps", "over", "the", "lazy", "dog"]
NUM_TOKENS = 150
EXPECTED = " ".join(WORDS[n % len(WORDS)] for n in range(NUM_TOKENS))


@pytest.fixture
def redis_server(tmp_path):
    server = FragileRedis(tmp_path)
    yield server
    server.stop()


@pytest.fixture
def stack(redis_server):
    """Two workers that take three seconds for an answer, and four rows each: some requests wait in the queue."""
    stack = Stack(redis_server.url)
    stack.start_gateway()
    for _ in range(2):
        stack.start("worker", "--model_type", "fake", "--fake_itl_ms", "20", "--max_num_seqs", "4")
    stack.wait_for_models("fake")
    yield stack
    stack.stop()


def ask(stack: Stack, has_begun: threading.Event, *, stream: bool) -> str:
    """One request; tells when its first token is there."""
    messages = [{"role": "user", "content": " ".join(WORDS)}]
    with stack.client() as client:
        answer = client.chat.completions.create(model="fake", messages=messages, max_tokens=NUM_TOKENS, stream=stream)
        if not stream:
            return answer.choices[0].message.content
        text = ""
        for chunk in answer:
            text += chunk.choices[0].delta.content or ""
            has_begun.set()
        return text


def answers_while(stack: Stack, fault) -> list[str]:
    """Twelve requests, streamed and plain, with the fault in their midst."""
    has_begun = threading.Event()
    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        asked = [pool.submit(ask, stack, has_begun, stream=number % 3 > 0) for number in range(12)]
        assert has_begun.wait(20)
        time.sleep(0.5)  # somewhere in the middle of the answers
        fault()
        return [answer.result(timeout=60) for answer in asked]


def test_redis_that_comes_back_empty_costs_no_open_request_anything(stack, redis_server):
    def fault():
        redis_server.kill(loses_data=True)
        redis_server.start()

    assert answers_while(stack, fault) == [EXPECTED] * 12


def test_redis_that_is_restarted_with_its_data_costs_no_open_request_anything(stack, redis_server):
    def fault():
        redis_server.kill(loses_data=False)
        time.sleep(1.0)
        redis_server.start()

    assert answers_while(stack, fault) == [EXPECTED] * 12


def test_redis_that_is_away_for_five_seconds_costs_no_open_request_anything(stack, redis_server):
    def fault():
        redis_server.kill(loses_data=False)
        time.sleep(5.0)
        redis_server.start()

    assert answers_while(stack, fault) == [EXPECTED] * 12


def test_redis_that_hangs_costs_no_open_request_anything(stack, redis_server):
    def fault():
        redis_server.hang()
        time.sleep(3.0)
        redis_server.resume()

    assert answers_while(stack, fault) == [EXPECTED] * 12
