"""Workers die, hang, break and leave in the middle of a mixed load: every client has the undisturbed answer."""

import random

import pytest
from openai import APIError

from baton.embedded import EmbeddedRedis
from tests.faults.blows import WORKER_BLOWS
from tests.faults.mix import ALPHABETS, Question
from tests.faults.puppet import GIANT, POISON
from tests.faults.stage import Stage

MODEST_LOAD = [Question(alphabet, is_streamed=True, max_tokens=150) for alphabet in ALPHABETS]


@pytest.fixture(scope="module")
async def stage():
    with EmbeddedRedis() as redis:
        async with Stage.open(redis.url, drain_timeout_s=0.3) as opened:
            yield opened


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("fault", WORKER_BLOWS, ids=lambda fault: fault.__name__)
async def test_worker_that(stage, fault, num_rounds, figures):
    for number in range(num_rounds):
        await stage.play(fault, random.Random(f"{fault.__name__} {number}"))

    figures.add(f"a worker {fault.__name__}", num_rounds, stage)


@pytest.mark.parametrize(
    ("alphabet", "code"),
    [(POISON, "worker_lost"), (GIANT, "out_of_memory")],
    ids=["breaks the model", "fits into no memory"],
)
async def test_request_that(stage, figures, alphabet, code):
    """It is failed in the end, with a reason, and costs nobody else anything."""
    workers = list(stage.workers)

    async def fault(stage, rng):
        asked = await stage.ask(Question(alphabet, is_streamed=True))
        assert isinstance(asked, APIError)
        assert asked.code == code

    await stage.play(fault, random.Random(0), MODEST_LOAD)

    assert [worker.poll() for worker in workers] == [None, None]
    figures.add(f"a request that ends in {code}", 1, stage)
