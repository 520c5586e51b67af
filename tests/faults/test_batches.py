"""A batch runs while something dies under it: every line is answered, once, as an undisturbed model answers it."""

import asyncio
import json
import random
import signal

import pytest
from openai import AsyncOpenAI
from redis.asyncio import Redis

from shared import keys
from tests.faults.blows import is_killed
from tests.faults.mix import ALPHABETS, text_of
from tests.faults.puppet import written
from tests.faults.server import FragileRedis
from tests.faults.stage import Stage

NUM_LINES = 48
NUM_TOKENS = 30
ENDPOINT = "/v1/chat/completions"


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory):
    with FragileRedis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="module")
async def stage(redis_server):
    async with Stage.open(redis_server.url, num_gateways=2, num_workers=2) as opened:
        yield opened


async def worker_is_killed(stage, redis_server, rng):
    await is_killed(stage, rng)


async def redis_is_restarted_with_its_data(stage, redis_server, rng):
    redis_server.kill(loses_data=False)
    await asyncio.sleep(rng.uniform(0, 2))
    redis_server.start()


async def gateway_is_killed(stage, redis_server, rng):
    await end_gateway(stage, signal.SIGKILL)


async def gateway_drains(stage, redis_server, rng):
    await end_gateway(stage, signal.SIGTERM)


async def end_gateway(stage, signum) -> None:
    """End the one that drives the batch, and start another one in its place."""
    port, gateway = list(stage.gateways.items())[-1]
    gateway.send_signal(signum)
    await asyncio.to_thread(gateway.wait, 60)
    stage.start_gateway(port)
    await stage.settle()


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("blow", "num_drivers"),
    [
        (worker_is_killed, 1),
        (redis_is_restarted_with_its_data, 1),
        (gateway_drains, 2),
        (gateway_is_killed, 2),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
async def test_every_line_is_answered_once_though_a(stage, redis_server, blow, num_drivers, num_rounds):
    for number in range(num_rounds):
        rng = random.Random(f"{blow.__name__} {number}")
        async with AsyncOpenAI(base_url=stage.urls[-1], api_key="-", max_retries=9, timeout=60) as client:
            with stage.hung_gateway():  # so that the other one takes the batch
                batch = await start(client)
                await has_answers(client, batch, rng.randrange(1, NUM_LINES // 2))
        await blow(stage, redis_server, rng)
        async with AsyncOpenAI(base_url=stage.urls[0], api_key="-", max_retries=9, timeout=60) as client:
            batch = await has_answers(client, batch, NUM_LINES)
            output = (await client.files.content(batch.output_file_id)).text.splitlines()

        assert (batch.status, batch.error_file_id) == ("completed", None)
        assert [told(line) for line in output] == [expected(n) for n in range(NUM_LINES)]
        assert await num_drivers_of(redis_server, batch) >= num_drivers


async def start(client):
    lines = [{"custom_id": f"line {n}", "method": "POST", "url": ENDPOINT, "body": body(n)} for n in range(NUM_LINES)]
    file = await client.files.create(file=("in.jsonl", "\n".join(map(json.dumps, lines)).encode()), purpose="batch")
    return await client.batches.create(input_file_id=file.id, endpoint=ENDPOINT, completion_window="24h")


def body(number: int) -> dict:
    messages = [{"role": "user", "content": alphabet(number)}]
    return {"model": "fake", "messages": messages, "max_tokens": NUM_TOKENS, "temperature": 1, "seed": number}


def alphabet(number: int) -> str:
    return ALPHABETS[number % len(ALPHABETS)]


def expected(number: int) -> tuple[str, str]:
    return f"line {number}", text_of(written(alphabet(number), number, NUM_TOKENS))


def told(line: str) -> tuple[str, str]:
    answer = json.loads(line)
    return answer["custom_id"], answer["response"]["body"]["choices"][0]["message"]["content"]


async def has_answers(client, batch, num_answers: int):
    """Return the batch once so many lines are answered, or all and it has ended."""
    async with asyncio.timeout(120):
        while True:
            batch = await client.batches.retrieve(batch.id)
            assert batch.status in {"validating", "in_progress", "finalizing", "completed"}
            if batch.status == "completed" or num_answers <= batch.request_counts.completed < NUM_LINES:
                return batch
            await asyncio.sleep(0.05)


async def num_drivers_of(redis_server, batch) -> int:
    async with Redis.from_url(redis_server.url) as redis:
        return int(await redis.hget(keys.batch(batch.id), "attempt"))
