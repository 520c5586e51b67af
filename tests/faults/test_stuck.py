"""A step that never ends, in a worker that is alive otherwise and would hold its jobs for ever."""

import random
import signal

import pytest

from baton.embedded import EmbeddedRedis
from tests.faults.stage import Stage

STEP_TIMEOUT_S = 3.0


@pytest.fixture(scope="module")
async def stage():
    with EmbeddedRedis() as redis:
        async with Stage.open(redis.url, step_timeout_s=STEP_TIMEOUT_S) as opened:
            yield opened


@pytest.mark.timeout(1800)
async def test_worker_whose_step_never_ends_hands_its_jobs_over_and_ends(stage, num_rounds, figures):
    async def fault(stage, rng):
        victim = await stage.strike(rng, signal.SIGALRM)
        await stage.replace(victim)
        assert victim.returncode == 1

    for number in range(num_rounds):
        await stage.play(fault, random.Random(f"stuck {number}"))

    figures.add("a worker sticks in a step", num_rounds, stage)
