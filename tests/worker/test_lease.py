"""Who holds which job, against a real Redis."""

import asyncio

from shared import keys
from shared.job import JobId
from worker.lease import Leases

MODEL = "m"


async def queue_jobs(redis, *names: str) -> None:
    await redis.zadd(keys.queue(MODEL), {name: score for score, name in enumerate(names, 1)})


def leases(redis, worker: str, lease_s: float = 10.0) -> Leases:
    return Leases(redis, worker, MODEL, lease_s)


async def test_jobs_are_claimed_oldest_first_and_by_one_worker_only(redis):
    await queue_jobs(redis, "a", "b", "c")

    first, _ = await leases(redis, "w1").claim(2)
    second, _ = await leases(redis, "w2").claim(2)

    assert [claim.job_id for claim in first] == ["a", "b"]
    assert [claim.job_id for claim in second] == ["c"]
    assert await redis.zcard(keys.inflight(MODEL)) == 3


async def test_racing_workers_share_the_queue_without_overlap(redis):
    await queue_jobs(redis, *(f"j{n:03}" for n in range(200)))

    rounds = await asyncio.gather(*(leases(redis, f"w{n % 8}").claim(5) for n in range(60)))

    claimed = [claim.job_id for claims, _ in rounds for claim in claims]
    assert sorted(claimed) == [f"j{n:03}" for n in range(200)]


async def test_expired_lease_is_claimed_again_with_the_next_attempt(redis):
    await queue_jobs(redis, "a")
    dead, lively = leases(redis, "dead", lease_s=0.05), leases(redis, "lively")
    await dead.claim(1)

    assert (await lively.claim(1))[0] == []
    claims = await claim_within(lively, timeout_s=2.0)

    assert [(claim.job_id, claim.attempt, claim.num_lost) for claim in claims] == [("a", 2, 1)]


async def test_claim_tells_when_the_next_lease_could_run_out(redis):
    await queue_jobs(redis, "a")
    _, until = await leases(redis, "w1", lease_s=5.0).claim(1)
    assert until is None

    _, until = await leases(redis, "w2").claim(1)

    assert until is not None
    assert 4.0 < until <= 5.0


async def test_renewed_lease_does_not_expire(redis):
    await queue_jobs(redis, "a")
    holder = leases(redis, "w1", lease_s=0.3)
    claims, _ = await holder.claim(1)

    for _ in range(6):
        await asyncio.sleep(0.1)
        assert await holder.renew(claims) == []

    assert (await leases(redis, "w2").claim(1))[0] == []


async def test_renewing_a_job_that_somebody_else_took_reports_it_lost(redis):
    await queue_jobs(redis, "a")
    late = leases(redis, "late", lease_s=0.05)
    claims, _ = await late.claim(1)
    await claim_within(leases(redis, "w2"), timeout_s=2.0)

    assert await late.renew(claims) == claims


async def test_handed_over_job_returns_to_its_place_and_counts_no_loss(redis):
    await queue_jobs(redis, "a", "b")
    first = leases(redis, "w1")
    (claim,), _ = await first.claim(1)

    await first.hand_over(claim, is_suspect=False)
    claims, _ = await leases(redis, "w2").claim(2)

    assert [(c.job_id, c.attempt, c.num_lost) for c in claims] == [("a", 2, 0), ("b", 1, 0)]


async def test_job_that_broke_a_worker_counts_as_if_it_had_taken_it_down(redis):
    await queue_jobs(redis, "a")
    for _ in range(2):
        (claim,), _ = await leases(redis, "w1").claim(1)
        await leases(redis, "w1").hand_over(claim, is_suspect=True)

    (claim,), _ = await leases(redis, "w2").claim(1)

    assert (claim.attempt, claim.num_lost) == (3, 2)


async def test_released_job_leaves_nothing_behind(redis):
    await queue_jobs(redis, "a")
    await redis.mset({keys.payload(JobId("a")): b"x", keys.tries(JobId("a")): 1})
    holder = leases(redis, "w1")
    (claim,), _ = await holder.claim(1)

    await holder.release(claim)

    assert await redis.keys("*") == []


async def test_claim_tells_whether_an_earlier_attempt_said_anything(redis):
    await queue_jobs(redis, "silent", "told")
    await redis.xadd(keys.log(JobId("told")), {"e": b"x"}, id="1-0")

    claims, _ = await leases(redis, "w1").claim(2)

    assert {claim.job_id: claim.has_log for claim in claims} == {"silent": False, "told": True}


async def test_late_worker_can_neither_release_nor_hand_over(redis):
    await queue_jobs(redis, "a")
    late = leases(redis, "late", lease_s=0.05)
    (claim,), _ = await late.claim(1)
    await claim_within(leases(redis, "w2"), timeout_s=2.0)

    await late.release(claim)
    await late.hand_over(claim, is_suspect=False)

    assert await redis.zcard(keys.inflight(MODEL)) == 1
    assert await redis.zcard(keys.queue(MODEL)) == 0


async def test_cost_of_a_claim_does_not_grow_with_the_jobs_in_flight(redis):
    async def commands_of_one_claim() -> int:
        before = (await redis.info("stats"))["total_commands_processed"]
        await leases(redis, "w").claim(1)
        return (await redis.info("stats"))["total_commands_processed"] - before

    await leases(redis, "w").claim(1)  # loads the script
    few = await commands_of_one_claim()
    await queue_jobs(redis, *(f"j{n}" for n in range(500)))
    await leases(redis, "w").claim(500)

    assert await commands_of_one_claim() <= few + 1  # the clock is read once there are leases


async def claim_within(claimer: Leases, timeout_s: float):
    async with asyncio.timeout(timeout_s):
        while not (claims := (await claimer.claim(1))[0]):
            await asyncio.sleep(0.01)
    return claims
