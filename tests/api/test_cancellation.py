"""A job is cancelled by its id alone, from any gateway, and its log says so."""

import time

import pytest
from redis.asyncio import Redis

from api.cancellation import Canceller
from api.keyring import ANYBODY, Caller
from api.queue import JobQueue
from shared import keys, wire
from shared.events import FinishReason
from shared.job import ChatJob, JobId, SamplingParams
from tests.api.conftest import asking
from tests.api.standin import StandIn

MODEL = "sparrow"


@pytest.fixture
def queue(redis: Redis) -> JobQueue:
    return JobQueue(redis, max_queue_len=10)


@pytest.fixture
async def job(queue: JobQueue) -> ChatJob:
    now_s = time.time()
    job = ChatJob(
        id=JobId("resp_1"),
        model=MODEL,
        gateway="elsewhere",
        messages=(),
        sampling=SamplingParams(),
        created_s=now_s,
        deadline_s=now_s + 60,
        log_ttl_s=77,
        key_name="ann",
    )
    await queue.enqueue(job)
    return job


ANN = Caller(name="ann")


async def end_of(redis: Redis, job: ChatJob):
    (*_, (_, last)) = await redis.xrange(keys.log(job.id))
    return wire.decode_event(last[b"e"])


async def test_waiting_job_leaves_the_queue_and_its_log_ends(redis, queue, job):
    assert await Canceller(queue).cancel(job.id, ANN)

    end = await end_of(redis, job)
    assert (end.seq, end.reason) == (1, FinishReason.CANCELLED)
    assert await redis.zcard(keys.queue(MODEL)) == 0
    assert not await queue.is_open(job.id)
    assert 70 < await redis.ttl(keys.log(job.id)) <= 77


async def test_job_of_a_dead_worker_ends_after_what_it_said(redis, queue, job):
    worker = StandIn(redis, MODEL)
    await worker.say(await worker.take(), "a", "b")

    assert await Canceller(queue).cancel(job.id, ANN)

    assert (await end_of(redis, job)).seq == 4
    assert not await redis.exists(keys.lease(job.id))


async def test_running_job_is_ended_by_its_worker(redis, queue, job):
    worker = StandIn(redis, MODEL)
    await worker.say(await worker.take(), "a")

    async with worker.hearing_cancels() as next_cancel, asking(Canceller(queue).cancel(job.id, ANN)) as cancelled:
        assert await next_cancel() == job.id
        await worker.finish(job, FinishReason.CANCELLED)
        await redis.delete(keys.payload(job.id), keys.lease(job.id))

        assert await cancelled
    assert (await end_of(redis, job)).seq == 3


@pytest.mark.parametrize("caller", [ANYBODY, Caller(name="bob")])
async def test_job_of_another_key_is_left_alone(queue, job, caller):
    assert not await Canceller(queue).cancel(job.id, caller)

    assert await queue.is_open(job.id)


async def test_job_that_nobody_knows_is_not_cancelled(queue):
    assert not await Canceller(queue).cancel(JobId("resp_0"), ANN)
