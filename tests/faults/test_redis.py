"""Redis goes away, comes back with its data, or comes back empty: no open request notices more than a pause."""

import asyncio
import random
from dataclasses import replace

import pytest

from tests.faults.mix import mixed_load
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
