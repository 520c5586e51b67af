"""Everything breaks, one thing after another, while clients ask on: `make soak` does it for ten minutes."""

import asyncio
import random
import time
from dataclasses import replace
from functools import partial

import pytest

from tests.faults.blows import WORKER_BLOWS
from tests.faults.mix import mixed_load
from tests.faults.proxy import Proxy
from tests.faults.server import FragileRedis
from tests.faults.stage import Stage

STREAMS = [replace(question, is_streamed=True) for question in mixed_load()]


async def redis_restarts(redis, stage, rng):
    redis.kill(loses_data=rng.random() < 0.5)
    redis.start()


async def redis_hangs(redis, stage, rng):
    redis.hang()
    await asyncio.sleep(rng.uniform(0.2, 2.0))
    redis.resume()


async def connections_are_cut(proxy, stage, rng):
    proxy.cut_soon(rng, max_bytes=5000)


async def gateway_is_killed(stage, rng):
    port = rng.choice(list(stage.gateways))
    stage.gateways[port].kill()
    await asyncio.to_thread(stage.gateways[port].wait)
    stage.start_gateway(port)


@pytest.mark.timeout(3600)
async def test_nothing_is_lost_while_everything_breaks(tmp_path, request, figures):
    rng, over_s = random.Random("soak"), time.monotonic() + request.config.getoption("--soak_s")
    num_blows = 0
    with FragileRedis(tmp_path) as redis:
        async with Proxy(redis.port) as proxy:
            around = [partial(redis_restarts, redis), partial(redis_hangs, redis), partial(connections_are_cut, proxy)]
            blows = [*WORKER_BLOWS, *around, gateway_is_killed]

            async def strike_on(answered):
                nonlocal num_blows
                while time.monotonic() < over_s or num_blows < 2:
                    await rng.choice(blows)(stage, rng)
                    num_blows += 1
                    await stage.settle()
                    await answered()  # what is struck twice counts as a request that takes workers down
                    await asyncio.sleep(rng.uniform(0, 1))

            async with Stage.open(proxy.url, num_gateways=2, drain_timeout_s=0.5) as stage:
                await stage.keep_asking(STREAMS, strike_on)

    figures.add(f"{num_blows} faults of all kinds one after another", 1, stage)
