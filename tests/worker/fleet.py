"""Real workers as real processes, and a stand-in for the gateway's end of the queue."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from arq.connections import ArqRedis
from redis.asyncio import Redis

from shared import keys, wire
from shared.events import JobEvent, is_terminal
from shared.fleet import WorkerInfo, WorkerState
from shared.job import ChatJob, JobId, Message, Role, SamplingParams, TextPart

GATEWAY = "test-gateway"


@contextmanager
def running_worker(redis_url: str, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """One fake worker; killed at the end if it still runs."""
    process = subprocess.Popen(
        [sys.executable, "-m", "worker", "--model_type", "fake", *options],
        env={**os.environ, "BATON_REDIS_URL": redis_url},
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


async def ready_worker(redis: Redis, pid: int, timeout_s: float = 20.0) -> WorkerInfo:
    """The heartbeat of this process, once it says that it is ready."""
    async with asyncio.timeout(timeout_s):
        while True:
            for worker_id in await redis.zrangebyscore(keys.WORKERS, time.time(), "+inf"):
                info = wire.decode_worker(await redis.get(keys.worker(worker_id.decode())))
                if info.pid == pid and info.state is WorkerState.READY:
                    return info
            await asyncio.sleep(0.02)


def make_job(text: str, job_id: str = "job-1", *, n: int = 1, deadline_s: float = 60.0, **sampling: object) -> ChatJob:
    return ChatJob(
        id=JobId(job_id),
        model="fake",
        gateway=GATEWAY,
        messages=(Message(Role.USER, (TextPart(text),)),),
        sampling=SamplingParams(**sampling),
        n=n,
        created_s=time.time(),
        deadline_s=time.time() + deadline_s,
    )


async def enqueue(redis: Redis, job: ChatJob) -> None:
    queue = ArqRedis(redis.connection_pool, wire.encode_arq, wire.decode_arq)
    await queue.enqueue_job("chat", wire.encode(job), _job_id=job.id, _queue_name=keys.queue(job.model))
    await redis.rpush(keys.wake(job.model), 1)


class Ear:
    """Hears what a gateway would hear."""

    def __init__(self, redis: Redis) -> None:
        self._pubsub = redis.pubsub(ignore_subscribe_messages=True)
        self.events: dict[str, list[JobEvent]] = {}

    async def __aenter__(self) -> "Ear":
        await self._pubsub.subscribe(keys.events(GATEWAY))
        return self

    async def __aexit__(self, *raised: object) -> None:
        await self._pubsub.aclose()

    async def hear(self, job_id: str, *, num_events: int | None = None, timeout_s: float = 20.0) -> list[JobEvent]:
        """Events of one job up to the terminal one, or at least the first so many."""
        async with asyncio.timeout(timeout_s):
            while True:
                events = self.events.setdefault(job_id, [])
                if events and (is_terminal(events[-1]) or len(events) >= (num_events or sys.maxsize)):
                    return events
                message = await self._pubsub.get_message(timeout=1.0)
                for event in wire.decode_events(message["data"]) if message else []:
                    self.events.setdefault(event.job_id, []).append(event)
