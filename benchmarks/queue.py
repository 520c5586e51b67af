"""Pick-up latency and idle cost of a worker, beside arq as it comes and beside the bare Redis primitive.

Run: python -m benchmarks.queue
"""

import asyncio
import os
import random
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable

from arq.connections import ArqRedis
from arq.worker import Worker, func
from redis.asyncio import Redis

from api.queue import JobQueue
from baton.embedded import EmbeddedRedis
from shared import keys
from shared.job import ChatJob, JobId, Message, Role, SamplingParams, TextPart
from worker.lease import Claim, Leases
from worker.queue import QueueWorker

LATENCIES = "latencies_ms"
MODEL = "fake"
NUM_JOBS = 300
NUM_STOCK_JOBS = 30
NUM_ROUNDS = 4
IDLE_S = 20.0

Enqueue = Callable[[int], Awaitable[object]]


def make_job(number: int) -> ChatJob:
    """A job whose `created_s` is the moment before it is queued."""
    now_s = time.time()
    return ChatJob(
        id=JobId(f"job-{number}"),
        model=MODEL,
        gateway="benchmark",
        messages=(Message(Role.USER, (TextPart("word"),)),),
        sampling=SamplingParams(max_tokens=1),
        created_s=now_s,
        deadline_s=now_s + 60,
    )


async def note(redis: Redis, created_s: float) -> None:
    """Write down how long ago the job was created."""
    await redis.rpush(LATENCIES, (time.time() - created_s) * 1000)


async def consume_as_baton(redis: Redis) -> None:
    """The worker's own claim loop, with a job that only notes when it began."""
    leases = Leases(redis, "benchmark", MODEL, lease_s=3.0)

    async def run(job: ChatJob, claim: Claim) -> None:
        await note(redis, job.created_s)

    queue = QueueWorker(redis, leases, model=MODEL, max_jobs=16, lease_s=3.0, run=run, on_fenced=lambda job_id: None)
    await queue.main()


async def consume_as_arq(redis: Redis) -> None:
    """arq as it comes: half a second between two looks into the queue."""

    async def run(ctx: dict[str, object], created_s: float) -> None:
        await note(redis, created_s)

    worker = Worker([func(run, name="run")], redis_pool=ArqRedis(redis.connection_pool), handle_signals=False)
    await worker.main()


async def consume_as_primitive(redis: Redis) -> None:
    """The floor: one blocked connection and no queue at all."""
    while True:
        _, created_s = await redis.blpop(["primitive"])
        await note(redis, float(created_s))


CONSUMERS = {"baton": consume_as_baton, "arq": consume_as_arq, "primitive": consume_as_primitive}


async def measure(redis: Redis, url: str, consumer: str, enqueue: Enqueue, num_jobs: int) -> list[float]:
    """Latencies in ms, sorted, of jobs queued at random moments for one idle consumer."""
    await redis.flushall()
    command = [sys.executable, "-m", "benchmarks.queue", consumer]
    process = subprocess.Popen(command, env={**os.environ, "BATON_REDIS_URL": url})
    try:
        for number in range(-3, num_jobs):  # the first three wait for the process to start
            await enqueue(number)
            await heard(redis, number + 4)
            await asyncio.sleep(random.uniform(0.02, 0.06))
        return sorted(float(latency) for latency in (await redis.lrange(LATENCIES, 3, -1)))
    finally:
        process.kill()
        process.wait()


async def heard(redis: Redis, num_jobs: int) -> None:
    """Wait until so many jobs have begun, without keeping Redis busy."""
    while await redis.llen(LATENCIES) < num_jobs:
        await asyncio.sleep(0.01)


async def idle_commands_per_s(redis: Redis, url: str) -> float:
    """Redis commands of one idle worker, those inside its scripts counted too."""
    await redis.flushall()
    command = [sys.executable, "-m", "worker", "--model_type", "fake", "--log_level", "warning"]
    process = subprocess.Popen(command, env={**os.environ, "BATON_REDIS_URL": url})
    try:
        while not await redis.exists(keys.WORKERS):
            await asyncio.sleep(0.1)
        await asyncio.sleep(3)
        before = (await redis.info("stats"))["total_commands_processed"]
        await asyncio.sleep(IDLE_S)
        after = (await redis.info("stats"))["total_commands_processed"]
        return (after - before - 1) / IDLE_S
    finally:
        process.kill()
        process.wait()


def show(name: str, latencies: list[float], floor: list[float]) -> None:
    """Print one row."""
    p50, p95, p99 = (latencies[int(len(latencies) * share)] for share in (0.5, 0.95, 0.99))
    print(f"{name:28}{p50:9.2f}{p95:9.2f}{p99:9.2f}{p50 / floor[len(floor) // 2]:12.1f}")


async def main() -> None:
    """Print the table; several rounds, because the machine has moods of its own."""
    with EmbeddedRedis() as server:
        redis: Redis = Redis.from_url(server.url)
        baton, stock = JobQueue(redis, max_queue_len=1000), ArqRedis(redis.connection_pool)
        print(f"{'pick-up by an idle worker':28}{'p50 ms':>9}{'p95 ms':>9}{'p99 ms':>9}{'p50 / bare':>12}")
        for _ in range(NUM_ROUNDS):
            floor = await measure(
                redis, server.url, "primitive", lambda n: redis.rpush("primitive", time.time()), NUM_JOBS
            )
            show("bare RPUSH / BLPOP", floor, floor)
            picked = await measure(redis, server.url, "baton", lambda n: baton.enqueue(make_job(n)), NUM_JOBS)
            show("baton", picked, floor)
        polled = await measure(
            redis, server.url, "arq", lambda n: stock.enqueue_job("run", time.time()), NUM_STOCK_JOBS
        )
        show("arq, poll_delay 0.5", polled, floor)
        print(f"\nidle worker: {await idle_commands_per_s(redis, server.url):.1f} Redis commands/s")
        await redis.aclose()


async def consume(consumer: str) -> None:
    """Be one of the consumers, in a process of its own."""
    await CONSUMERS[consumer](Redis.from_url(os.environ["BATON_REDIS_URL"]))


if __name__ == "__main__":
    asyncio.run(consume(sys.argv[1]) if len(sys.argv) > 1 else main())
