"""The worker's end of the queue: arq's worker with a claim of its own. The only worker file that knows arq."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from arq.connections import ArqRedis
from arq.constants import retry_key_prefix
from arq.worker import Worker, func
from redis.asyncio import Redis
from redis.exceptions import RedisError

from shared import keys, wire
from shared.job import ChatJob, JobId
from worker.lease import Claim, Leases

logger = logging.getLogger(__name__)

IDLE_CLAIM_INTERVAL_S = 2.0
"""Longest time a lost poke can delay a job."""
RETRY_PAUSE_S = 0.5
NO_LIMIT = 10**9
"""arq's own tries and time-outs; attempts and deadlines are ours."""

RunJob = Callable[[ChatJob, Claim], Awaitable[None]]


class QueueWorker(Worker):
    """Keeps arq's job payload, `run_job` and life cycle; replaces its polling, claim and in-progress key.

    arq polls every half second, reads running jobs again and again, and holds a dead worker's jobs
    for minutes (docs/architecture.md says what is done instead).
    """

    def __init__(
        self,
        redis: Redis,
        leases: Leases,
        *,
        model: str,
        max_jobs: int,
        lease_s: float,
        run: RunJob,
        on_fenced: Callable[[JobId], None],
    ) -> None:
        super().__init__(
            functions=[func(self._chat, name="chat")],
            queue_name=keys.queue(model),
            redis_pool=ArqRedis(redis.connection_pool, wire.encode_arq, wire.decode_arq),
            job_serializer=wire.encode_arq,
            job_deserializer=wire.decode_arq,
            max_jobs=max_jobs,
            max_tries=NO_LIMIT,
            job_timeout=NO_LIMIT,
            keep_result=0,
            log_results=False,
            handle_signals=False,
        )
        self._wake_key = keys.wake(model)
        self._leases = leases
        self._lease_s = lease_s
        self._run = run
        self._on_fenced = on_fenced
        self._claims: dict[str, Claim] = {}
        self._more_rows: dict[str, int] = {}
        self._job_ended = asyncio.Event()

    async def main(self) -> None:
        """Claim for ever; cancelled by a drain."""
        while True:
            try:
                claims, until_expiry_s = await self._leases.claim(self._num_free)
                for claim in claims:
                    self._start(claim)
                await self._pause(until_expiry_s)
            except RedisError as error:
                logger.warning("claiming waits for Redis: %s", error)
                await asyncio.sleep(RETRY_PAUSE_S)

    async def renew(self) -> None:
        """Prolong the leases of all running jobs, for ever, three times per lease."""
        while True:
            await asyncio.sleep(self._lease_s / 3)
            if not self._claims:
                continue
            try:
                for job_id in await self._leases.renew(list(self._claims.values())):
                    self._on_fenced(job_id)
            except RedisError as error:
                logger.warning("renewing leases waits for Redis: %s", error)

    async def drain(self, timeout_s: float) -> None:
        """Let running jobs end, and hand over at once what didn't in time."""
        if running := list(self.tasks.values()):
            logger.info("draining %d jobs", len(running))
            await asyncio.wait(running, timeout=timeout_s)
        for task in self.tasks.values():
            task.cancel()
        if self.tasks:
            await asyncio.wait(list(self.tasks.values()))

    async def finish_job(self, job_id: str, finish: bool, *_: Any) -> None:
        """End a job in Redis, or hand it over if it was cut off by a drain."""
        claim = self._claims[job_id]
        await (self._leases.release(claim) if finish else self._leases.hand_over(claim))
        await self.pool.delete(retry_key_prefix + job_id)

    async def finish_failed_job(self, job_id: str, result_data: bytes | None) -> None:
        """End a job whose payload expired or can't be read."""
        await self.finish_job(job_id, True)

    def _start(self, claim: Claim) -> None:
        self._claims[claim.job_id] = claim
        task = asyncio.create_task(self.run_job(claim.job_id, claim.score), name=claim.job_id)
        self.tasks[claim.job_id] = task
        task.add_done_callback(lambda _: self._end(claim))

    def _end(self, claim: Claim) -> None:
        if self._claims.get(claim.job_id) is claim:  # and not a later claim of the same job
            del self._claims[claim.job_id], self.tasks[claim.job_id]
            self._more_rows.pop(claim.job_id, None)
        self._job_ended.set()

    @property
    def _num_free(self) -> int:
        """Rows that no job asks for; how many a job asks for is known once its payload is read."""
        return max(self.max_jobs - len(self._claims) - sum(self._more_rows.values()), 0)

    async def _pause(self, until_expiry_s: float | None) -> None:
        """Sleep until there may be something to claim."""
        if self._num_free == 0:
            self._job_ended.clear()
            await self._job_ended.wait()
            return
        timeout_s = min(IDLE_CLAIM_INTERVAL_S, until_expiry_s or IDLE_CLAIM_INTERVAL_S)
        # redis-py's own blpop knows only whole seconds
        await self.pool.execute_command(  # type: ignore[no-untyped-call]
            "BLPOP", self._wake_key, max(timeout_s, 0.01)
        )

    async def _chat(self, ctx: dict[str, Any], payload: bytes) -> None:
        job = wire.decode_job(payload)
        self._more_rows[job.id] = job.n - 1
        await self._run(job, self._claims[ctx["job_id"]])
