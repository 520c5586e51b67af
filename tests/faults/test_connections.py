"""The way to Redis breaks in the middle of a mixed load: every client has the undisturbed answer."""

import asyncio
import random

import pytest
from redis.asyncio import Redis

from shared import keys
from tests.faults.proxy import Proxy
from tests.faults.server import FragileRedis
from tests.faults.stage import Stage

MEGABYTE = 2**20


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory):
    with FragileRedis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="module")
async def proxy(redis_server):
    async with Proxy(redis_server.port) as opened:
        yield opened


@pytest.fixture(scope="module")
async def stage(proxy):
    async with Stage.open(proxy.url) as opened:
        yield opened


@pytest.mark.timeout(1800)
async def test_connections_that_are_cut_anywhere_cost_nobody_anything(stage, proxy, num_rounds, figures):
    async def fault(stage, rng):
        for _ in range(3):
            proxy.cut_soon(rng, max_bytes=5000)
            await asyncio.sleep(rng.uniform(0.1, 0.4))

    for number in range(num_rounds):
        await stage.play(fault, random.Random(f"cut {number}"))

    assert proxy.num_cut > 3 * num_rounds
    figures.add("connections cut within a command or a reply", num_rounds, stage)


@pytest.mark.timeout(1800)
async def test_slow_subscriber_that_redis_cuts_off_costs_nobody_anything(stage, redis_server, num_rounds, figures):
    async with Redis.from_url(redis_server.url) as redis:
        await redis.config_set("client-output-buffer-limit", f"pubsub {MEGABYTE} {MEGABYTE} 1")

        async def fault(stage, rng):
            (channel,) = await redis.pubsub_channels(keys.events("*"))
            with stage.hung_gateway():
                while (await redis.pubsub_numsub(channel))[0][1]:
                    await redis.publish(channel, b"?" * MEGABYTE)

        for number in range(num_rounds):
            await stage.play(fault, random.Random(f"slow {number}"))

    figures.add("a subscriber cut off by Redis", num_rounds, stage)
