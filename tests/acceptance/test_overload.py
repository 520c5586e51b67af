"""Ten times more requests than there is room for: who is accepted is served, who isn't is told so and costs nothing."""

import asyncio

import httpx2
import pytest
from redis import Redis

from shared import keys
from shared.job import JobId

SLOTS, ROOM = 4, 8
NUM_REQUESTS = 10 * (SLOTS + ROOM)
NUM_TOKENS = 20
WORDS = "one two three"
EXPECTED = " ".join(WORDS.split()[n % 3] for n in range(NUM_TOKENS))


@pytest.fixture
def stack(new_stack):
    stack = new_stack()
    stack.start_gateway("--max_queue_len", str(ROOM))
    stack.start("worker", "--model_type", "fake", "--max_num_seqs", str(SLOTS), "--fake_itl_ms", "20")
    stack.wait_for_models("fake")
    return stack


async def post(http: httpx2.AsyncClient, number: int) -> httpx2.Response:
    messages = [{"role": "user", "content": WORDS}]
    body = {"model": "fake", "messages": messages, "max_tokens": NUM_TOKENS, "stream": number % 2 == 0}
    return await http.post("/v1/chat/completions", json=body)


def text_of(answer: httpx2.Response) -> str:
    if answer.headers["content-type"].startswith("application/json"):
        return answer.json()["choices"][0]["message"]["content"]
    frames = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: ")]
    assert frames.pop() == "[DONE]"
    chunks = [httpx2.Response(200, content=frame).json() for frame in frames]
    return "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks)


async def test_accepted_requests_are_answered_whole_and_refused_ones_never_reach_the_queue(stack):
    limits = httpx2.Limits(max_connections=NUM_REQUESTS)
    async with httpx2.AsyncClient(base_url=stack.url, trust_env=False, timeout=100, limits=limits) as http:
        answers = await asyncio.gather(*(post(http, number) for number in range(NUM_REQUESTS)))

    accepted = [answer for answer in answers if answer.status_code == 200]
    refused = [answer for answer in answers if answer.status_code != 200]
    assert {text_of(answer) for answer in accepted} == {EXPECTED}
    assert {answer.status_code for answer in refused} == {429}
    assert {answer.json()["error"]["code"] for answer in refused} == {"queue_full"}
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
    assert len(accepted) >= ROOM
    with Redis.from_url(stack.redis_url) as redis:  # every job that was ever claimed has left its log
        assert len(redis.keys(keys.log(JobId("*")))) == len(accepted)
        assert not redis.exists(keys.queue("fake"), keys.inflight("fake"))
