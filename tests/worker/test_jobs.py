"""A job from the queue to its last event: real workers, a real Redis."""

import asyncio
import os
import signal
import time

import pytest

from baton.fleet import local_workers
from shared import keys, wire
from shared.errors import ErrorCode
from shared.events import ChoiceFinished, Failed, Finished, FinishReason, Started, TextDelta, Usage
from shared.fleet import WorkerState
from tests.worker.fleet import Ear, enqueue, make_job, ready_worker, running_worker
from worker.heartbeat import STALE_S
from worker.lease import Leases
from worker.stop import KILLED_STATUS


@pytest.fixture
def url(redis_server):
    return redis_server.url


def text_of(events) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


async def test_answer_is_started_told_in_order_and_finished_once(redis, url):
    with running_worker(url) as worker:
        await ready_worker(redis, worker.pid)
        async with Ear(redis) as ear:
            await enqueue(redis, make_job("one two three", max_tokens=5))
            events = await ear.hear("job-1")

    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert isinstance(events[0], Started)
    assert events[0].prompt_tokens == 3
    assert text_of(events) == "one two three one two"
    assert isinstance(events[-1], Finished)
    assert (events[-1].reason, events[-1].usage) == (FinishReason.LENGTH, Usage(3, 5))


async def test_ended_job_leaves_only_its_log_which_expires(redis, url):
    with running_worker(url) as worker:
        info = await ready_worker(redis, worker.pid)
        async with Ear(redis) as ear:
            await enqueue(redis, make_job("a b", max_tokens=3))
            events = await ear.hear("job-1")
        logged = [wire.decode_event(fields[b"e"]) for _, fields in await redis.xrange(keys.log(events[0].job_id))]
        await gone(redis, "arq:*", "lease:*", "inflight:*", "queue:*")

    assert logged == events
    assert 0 < await redis.ttl("log:job-1") <= 300
    assert set(await redis.keys("*")) <= {b"log:job-1", b"workers", f"worker:{info.id}".encode(), b"wake:fake"}


async def test_prompt_that_is_too_long_fails_with_the_limit_in_the_message(redis, url):
    with running_worker(url, "--max_model_len", "8") as worker:
        await ready_worker(redis, worker.pid)
        async with Ear(redis) as ear:
            await enqueue(redis, make_job("w " * 9, "too-long"))
            await enqueue(redis, make_job("w " * 5, "too-much", max_tokens=4))
            await enqueue(redis, make_job("w " * 5, "fits"))
            too_long, too_much, fits = [await ear.hear(name) for name in ("too-long", "too-much", "fits")]

    assert isinstance(too_long[0], Failed)
    assert (too_long[0].code, too_long[0].param) == (ErrorCode.CONTEXT_LENGTH_EXCEEDED, "messages")
    assert isinstance(too_much[0], Failed)
    assert (too_much[0].code, too_much[0].param) == (ErrorCode.CONTEXT_LENGTH_EXCEEDED, "max_tokens")
    assert "at most 3" in too_much[0].message
    assert isinstance(fits[-1], Finished)
    assert fits[-1].usage.completion_tokens == 3


async def test_grammar_that_the_model_cannot_follow_fails_its_own_job(redis, url):
    with running_worker(url) as worker:
        await ready_worker(redis, worker.pid)
        async with Ear(redis) as ear:
            await enqueue(redis, make_job("a b", "grammar", grammar='start: "a"'))
            await enqueue(redis, make_job("a b", "plain", max_tokens=2))
            refused, plain = await ear.hear("grammar"), await ear.hear("plain")

    assert isinstance(refused[0], Failed)
    assert refused[0].code is ErrorCode.INVALID_REQUEST
    assert "spell no text" in refused[0].message
    assert isinstance(plain[-1], Finished)


async def test_jobs_of_several_answers_wait_for_rows_and_leave_other_jobs_to_others(redis, url):
    """Two rows: three answers at once can't be, and as long as they are asked for no other job is claimed."""
    with running_worker(url, "--fake_itl_ms", "20", "--max_num_seqs", "2") as worker:
        await ready_worker(redis, worker.pid)
        async with Ear(redis) as ear:
            await enqueue(redis, make_job("a b", "three", n=3, max_tokens=30))
            await ear.hear("three", num_events=5)
            await enqueue(redis, make_job("c", "next", n=2, max_tokens=2))
            await ear.hear("three", num_events=25)
            num_queued = await redis.zcard(keys.queue("fake"))
            three, following = await ear.hear("three"), await ear.hear("next")

    assert num_queued == 1
    for index in range(3):
        said = [event for event in three if isinstance(event, TextDelta) and event.index == index]
        assert text_of(said) == " ".join("ab"[n % 2] for n in range(30))
    ended = [event.index for event in three if isinstance(event, ChoiceFinished | Finished)]
    assert sorted(ended) == [0, 1, 2]
    assert three[-1].usage == Usage(2, 90)
    assert following[-1].usage == Usage(1, 4)


async def test_request_that_outlives_its_deadline_fails_and_frees_its_slot(redis, url):
    with running_worker(url, "--fake_itl_ms", "50", "--max_num_seqs", "1") as worker:
        await ready_worker(redis, worker.pid)
        async with Ear(redis) as ear:
            await enqueue(redis, make_job("slow", "late", deadline_s=0.6))
            await enqueue(redis, make_job("quick", "next", max_tokens=2))
            late, following = await ear.hear("late"), await ear.hear("next")

    assert isinstance(late[-1], Failed)
    assert late[-1].code is ErrorCode.DEADLINE_EXCEEDED
    assert isinstance(following[-1], Finished)


async def test_cancelled_job_stops_within_a_step_and_frees_its_slot(redis, url):
    with running_worker(url, "--fake_itl_ms", "20", "--max_num_seqs", "1") as worker:
        info = await ready_worker(redis, worker.pid)
        async with Ear(redis) as ear:
            await enqueue(redis, make_job("long", "left"))
            await enqueue(redis, make_job("next", "next", max_tokens=2))
            await ear.hear("left", num_events=5)
            await redis.publish(keys.cancel(info.id), "left")
            events = await ear.hear("left")
            await ear.hear("next")

    assert isinstance(events[-1], Finished)
    assert events[-1].reason is FinishReason.CANCELLED
    assert len(events) < 50


async def test_cancel_that_comes_before_its_job_stops_it(redis, url):
    """As it does when a client leaves between the claim and the reading of the payload."""
    with running_worker(url, "--fake_itl_ms", "10") as worker:
        info = await ready_worker(redis, worker.pid)
        async with Ear(redis) as ear:
            await redis.publish(keys.cancel(info.id), "job-1")
            await enqueue(redis, make_job("a b c", max_tokens=3000))
            events = await ear.hear("job-1")

    assert isinstance(events[-1], Finished)
    assert events[-1].reason is FinishReason.CANCELLED


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGSTOP])
async def test_answer_of_a_dead_or_hung_worker_is_continued_by_another(redis, url, signum):
    text, options = "a b c d e f g", ("--fake_itl_ms", "10", "--lease_s", "0.6")
    with running_worker(url, *options) as first:
        await ready_worker(redis, first.pid)
        async with Ear(redis) as ear:
            await enqueue(redis, make_job(text, max_tokens=100))
            await ear.hear("job-1", num_events=10)
            first.send_signal(signum)
            with running_worker(url, *options) as second:
                await ready_worker(redis, second.pid)
                events = await ear.hear("job-1")

    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert text_of(events) == " ".join(text.split()[n % 7] for n in range(100))
    assert {event.attempt for event in events} == {1, 2}
    assert isinstance(events[-1], Finished)
    assert events[-1].usage == Usage(7, 100)


async def test_answer_that_takes_longer_than_three_leases_is_finished(redis, url):
    """Its worker renews them; a lease that runs out twice would fail it."""
    with running_worker(url, "--fake_itl_ms", "10", "--lease_s", "0.7") as worker:
        await ready_worker(redis, worker.pid)
        async with Ear(redis) as ear:
            await enqueue(redis, make_job("a b c", max_tokens=350))
            events = await ear.hear("job-1")

    assert isinstance(events[-1], Finished)


async def test_hung_worker_that_wakes_up_late_is_fenced(redis, url):
    options = ("--fake_itl_ms", "10", "--lease_s", "0.6")
    with running_worker(url, *options) as first:
        await ready_worker(redis, first.pid)
        async with Ear(redis) as ear:
            await enqueue(redis, make_job("a b c", max_tokens=200))
            await ear.hear("job-1", num_events=10)
            os.kill(first.pid, signal.SIGSTOP)
            with running_worker(url, *options) as second:
                info = await ready_worker(redis, second.pid)
                while (await redis.hget("lease:job-1", "holder")) != f"{info.id}/2".encode():
                    await asyncio.sleep(0.01)
                os.kill(first.pid, signal.SIGCONT)
                events = await ear.hear("job-1")

    attempts = [event.attempt for event in events]
    assert attempts == sorted(attempts)
    assert text_of(events) == " ".join("abc"[n % 3] for n in range(200))


async def test_late_worker_says_nothing_even_if_its_successor_is_silent_yet(redis, url):
    with running_worker(url, "--fake_itl_ms", "10", "--lease_s", "0.6") as late:
        info = await ready_worker(redis, late.pid)
        async with Ear(redis) as ear:
            await enqueue(redis, make_job("a b c"))
            await ear.hear("job-1", num_events=10)
            os.kill(late.pid, signal.SIGSTOP)
            await claimed(Leases(redis, "successor", "fake", lease_s=60))
            num_said = await redis.xlen("log:job-1")

            os.kill(late.pid, signal.SIGCONT)
            await resting(redis, info.id)

    assert await redis.xlen("log:job-1") == num_said


async def test_hung_worker_that_finds_nobody_took_its_job_goes_on_with_it(redis, url):
    with running_worker(url, "--fake_itl_ms", "10", "--lease_s", "0.6") as worker:
        await ready_worker(redis, worker.pid)
        async with Ear(redis) as ear:
            await enqueue(redis, make_job("a b c", max_tokens=200))
            await ear.hear("job-1", num_events=10)
            os.kill(worker.pid, signal.SIGSTOP)
            await asyncio.sleep(0.8)  # longer than the lease
            os.kill(worker.pid, signal.SIGCONT)
            events = await ear.hear("job-1")

    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert text_of(events) == " ".join("abc"[n % 3] for n in range(200))


async def test_worker_that_claims_its_own_job_again_ends_its_earlier_attempt_first(redis, url):
    """Which leaves both rows to others when the job is over."""
    with running_worker(url, "--fake_itl_ms", "10", "--lease_s", "60", "--max_num_seqs", "2") as worker:
        await ready_worker(redis, worker.pid)
        async with Ear(redis) as ear:
            await enqueue(redis, make_job("a b c", max_tokens=200))
            await ear.hear("job-1", num_events=10)
            await redis.zadd(keys.inflight("fake"), {"job-1": 1})  # the lease has run out long ago
            await redis.rpush(keys.wake("fake"), 1)
            events = await ear.hear("job-1")
            await enqueue(redis, make_job("a b c", "long", max_tokens=3000))
            await ear.hear("long", num_events=1)
            await enqueue(redis, make_job("a b c", "short", max_tokens=3))
            await ear.hear("short")

    assert {event.attempt for event in events} == {1, 2}
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert text_of(events) == " ".join("abc"[n % 3] for n in range(200))
    assert not isinstance(ear.events["long"][-1], Finished)


@pytest.mark.parametrize("num_said", [0, 3])
async def test_job_that_took_two_workers_down_is_failed(redis, url, num_said):
    """Whether they died before their first word or after some."""
    for seq in range(1, num_said + 1):
        said = TextDelta(job_id="job-1", attempt=1, seq=seq, text="poison", token_ids=(0,))
        await redis.xadd("log:job-1", {"e": wire.encode(said)}, id=f"{seq}-0")
    await redis.hset("lease:job-1", mapping={"attempt": 1, "lost": 1, "score": 1, "holder": "dead/1"})
    await redis.zadd(keys.inflight("fake"), {"job-1": 1})
    job = make_job("poison")
    await redis.set(keys.payload(job.id), wire.encode_arq(envelope(job)))
    async with Ear(redis) as ear:
        with running_worker(url) as worker:
            await ready_worker(redis, worker.pid)
            events = await ear.hear("job-1")

    assert isinstance(events[-1], Failed)
    assert (events[-1].code, events[-1].seq) == (ErrorCode.WORKER_LOST, num_said + 1)


async def test_log_with_a_hole_is_not_continued(redis, url):
    for seq in (1, 2, 5):
        said = TextDelta(job_id="job-1", attempt=1, seq=seq, text="a", token_ids=(0,))
        await redis.xadd("log:job-1", {"e": wire.encode(said)}, id=f"{seq}-0")
    async with Ear(redis) as ear:
        with running_worker(url) as worker:
            await ready_worker(redis, worker.pid)
            await enqueue(redis, make_job("a"))
            events = await ear.hear("job-1")

    assert isinstance(events[-1], Failed)
    assert (events[-1].code, events[-1].seq) == (ErrorCode.STREAM_INTERRUPTED, 6)


async def test_terminated_worker_finishes_what_it_can_and_hands_over_the_rest_at_once(redis, url):
    options = ("--fake_itl_ms", "10", "--lease_s", "60", "--drain_timeout_s", "0.5")
    with running_worker(url, *options) as first:
        await ready_worker(redis, first.pid)
        async with Ear(redis) as ear:
            await enqueue(redis, make_job("a b", "short", max_tokens=30))
            await enqueue(redis, make_job("a b", "long", max_tokens=400))
            await ear.hear("short", num_events=5)
            await ear.hear("long", num_events=5)
            first.terminate()
            with running_worker(url, *options) as second:
                await ready_worker(redis, second.pid)
                asked_s = time.monotonic()
                short, long = await ear.hear("short"), await ear.hear("long")
                took_s = time.monotonic() - asked_s
        assert first.wait(timeout=10) == 0

    assert {event.attempt for event in short} == {1}
    assert {event.attempt for event in long} == {1, 2}
    assert text_of(long) == " ".join("ab"[n % 2] for n in range(400))
    assert took_s < 30  # far less than the lease


async def test_second_signal_hands_over_at_once_and_the_third_ends_the_worker(redis, url):
    options = ("--fake_itl_ms", "10", "--lease_s", "60", "--drain_timeout_s", "60")
    with running_worker(url, *options) as first:
        await ready_worker(redis, first.pid)
        async with Ear(redis) as ear:
            await enqueue(redis, make_job("a b", max_tokens=300))
            await ear.hear("job-1", num_events=5)
            first.terminate()
            await draining(redis, first.pid)
            first.send_signal(signal.SIGINT)
            assert await asyncio.to_thread(first.wait, 20) == 0
            with running_worker(url, *options) as second:
                events = await ear.hear("job-1")
                await enqueue(redis, make_job("a b", "job-2"))
                await ear.hear("job-2", num_events=5)
                second.terminate()
                await draining(redis, second.pid)
                os.kill(second.pid, signal.SIGSTOP)  # so that it can't be quicker than the third signal
                second.terminate()
                os.kill(second.pid, signal.SIGCONT)
                second.send_signal(signal.SIGINT)
                assert await asyncio.to_thread(second.wait, 20) == KILLED_STATUS

    assert {event.attempt for event in events} == {1, 2}
    assert text_of(events) == " ".join("ab"[n % 2] for n in range(300))


async def test_payload_of_another_version_costs_nobody_else_anything(redis, url):
    with running_worker(url) as worker:
        await ready_worker(redis, worker.pid)
        await redis.set("arq:job:alien", b"\x7f garbage")
        await redis.zadd(keys.queue("fake"), {"alien": 1})
        async with Ear(redis) as ear:
            await enqueue(redis, make_job("fine", max_tokens=2))
            events = await ear.hear("job-1")
        await gone(redis, "arq:job:*", "inflight:*")

    assert isinstance(events[-1], Finished)


async def claimed(leases: Leases) -> None:
    """Claim one job once its lease has run out."""
    async with asyncio.timeout(20):
        while not (await leases.claim(1))[0]:
            await asyncio.sleep(0.01)


async def resting(redis, worker_id: str) -> None:
    """Wait for a heartbeat from now on that says the worker runs nothing."""
    since_s = time.time()
    async with asyncio.timeout(20):
        while True:
            stale_s, info = await redis.zscore(keys.WORKERS, worker_id), await redis.get(keys.worker(worker_id))
            if stale_s > since_s + STALE_S and wire.decode_worker(info).running == 0:
                return
            await asyncio.sleep(0.01)


async def draining(redis, pid: int) -> None:
    """Wait until the worker says that it drains."""
    async with asyncio.timeout(20):
        while (await local_workers(redis))[pid].state is not WorkerState.DRAINING:
            await asyncio.sleep(0.01)


def envelope(job) -> dict[str, object]:
    return {"t": None, "f": "chat", "a": (wire.encode(job),), "k": {}, "et": int(time.time() * 1000)}


async def gone(redis, *patterns: str, timeout_s: float = 5.0) -> None:
    """Wait until no key matches any of these."""
    async with asyncio.timeout(timeout_s):
        while any([await redis.keys(pattern) for pattern in patterns]):
            await asyncio.sleep(0.01)
