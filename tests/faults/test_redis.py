"""Redis goes away, comes back with its data, or comes back empty: no open request notices more than a pause."""

import asyncio
import random
import signal
from dataclasses import replace

import pytest
from redis.asyncio import Redis

from api.registry import MAX_AGE_S
from shared import keys
from tests.faults.mix import Question, mixed_load
from tests.faults.server import FragileRedis
from tests.faults.stage import Stage


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory):
    with FragileRedis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="module")
async def stage(redis_server):
    async with Stage.open(redis_server.url) as opened:
        yield opened


async def comes_back_empty(redis, rng):
    redis.kill(loses_data=True)
    redis.start()


async def is_restarted_with_its_data(redis, rng):
    redis.kill(loses_data=False)
    await asyncio.sleep(rng.uniform(0, 2.0))
    redis.start()


async def is_away_for_five_seconds(redis, rng):
    redis.kill(loses_data=False)
    await asyncio.sleep(5.0)
    redis.start()


async def hangs(redis, rng):
    redis.hang()
    await asyncio.sleep(rng.uniform(0.5, 4.0))
    redis.resume()


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    "fault",
    [comes_back_empty, is_restarted_with_its_data, is_away_for_five_seconds, hangs],
    ids=lambda fault: fault.__name__,
)
async def test_redis_that(stage, redis_server, fault, num_rounds, figures):
    for number in range(num_rounds):
        await stage.play(lambda stage, rng: fault(redis_server, rng), random.Random(f"{fault.__name__} {number}"))

    assert stage.has_all_processes
    figures.add(f"a Redis {fault.__name__}", num_rounds, stage)


async def test_gateway_knows_the_workers_that_redis_forgot(stage, redis_server):
    question = Question("the quick fox", is_streamed=True, max_tokens=20)
    assert await stage.ask(question) == question.expected

    async with Redis.from_url(redis_server.url) as redis:
        with stage.hung_workers():  # none of them says that it is there
            await redis.flushall()
            await asyncio.sleep(MAX_AGE_S)  # what the gateway read before is too old
            asked = asyncio.create_task(stage.ask(question))
            while not asked.done() and not await redis.keys(keys.payload("*")):
                await asyncio.sleep(0.02)

    assert await asked == question.expected


async def test_worker_that_stops_is_known_to_be_gone_at_once(stage, redis_server):
    """Unlike one that dies, which a gateway knows for as long as its last heartbeat holds."""
    question = Question("the quick fox", is_streamed=True, max_tokens=20)
    for worker in list(stage.workers):
        worker.send_signal(signal.SIGTERM)
        await asyncio.to_thread(worker.wait)
        stage.workers.remove(worker)
    await asyncio.sleep(MAX_AGE_S)

    refused = await stage.ask(question)

    assert (refused.status_code, refused.code) == (503, "model_unavailable")
    stage.start_worker()
    stage.start_worker()
    await stage.settle()


@pytest.mark.timeout(1800)
async def test_new_questions_are_answered_while_redis_comes_back_empty(stage, redis_server, num_rounds, figures):
    """They come before Redis takes connections again, and before the workers' next heartbeats."""
    questions = [replace(question, is_streamed=True, max_tokens=4) for question in mixed_load()]

    async def forgets(answered):
        for _ in range(num_rounds):
            redis_server.kill(loses_data=True)
            await asyncio.sleep(0.3)
            redis_server.start()
            await answered()
            await answered()

    await stage.keep_asking(questions, forgets)

    figures.add("a Redis comes back empty under ever new questions", num_rounds, stage)
