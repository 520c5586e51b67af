"""The worker's end of the queue: arq's worker with a claim of its own. The only worker file that knows arq."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from arq.connections import ArqRedis
from arq.worker import Retry, Worker, func
from redis.asyncio import Redis
from redis.exceptions import RedisError

from shared import keys, wire
from shared.job import ChatJob, JobId
from worker.lease import Claim, GivenUp, Leases

logger = logging.getLogger(__name__)

IDLE_CLAIM_INTERVAL_S = 2.5
"""Longest time a lost poke can delay a job."""
RETRY_PAUSE_S = 0.5
NO_LIMIT = 10**9
"""arq's own tries and time-outs; attempts and deadlines are ours."""

RunJob = Callable[[ChatJob, Claim], Awaitable[None]]
"""Returns once the job has ended; raises GivenUp if another attempt has to go on with it."""


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
        idle_s: float = IDLE_CLAIM_INTERVAL_S,
    ) -> None:
        """`idle_s` is the longest that an idle queue isn't looked at; each look costs Redis a few commands."""
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
        self._idle_s = idle_s
        self._run = run
        self._on_fenced = on_fenced
        self._held: dict[asyncio.Task[None], Claim] = {}
        self._claims: dict[str, Claim] = {}
        self._suspects: set[str] = set()
        self._claiming = asyncio.Lock()
        self._more_rows: dict[str, int] = {}
        self._job_ended = asyncio.Event()

    async def main(self) -> None:
        """Claim for ever; cancelled by a drain, which waits for what is just being claimed."""
        while True:
            try:
                await self._pause(await asyncio.shield(self._claim()))
            except RedisError as error:
                logger.warning("claiming waits for Redis: %s", error)
                await asyncio.sleep(RETRY_PAUSE_S)

    async def renew(self) -> None:
        """Prolong the leases of all running jobs, for ever, three times per lease."""
        while True:
            await asyncio.sleep(self._lease_s / 3)
            if not self._held:
                continue
            try:
                for claim in await self._leases.renew(list(self._held.values())):
                    if self._claims.get(claim.job_id) is claim:
                        self._on_fenced(claim.job_id)
            except RedisError as error:
                logger.warning("renewing leases waits for Redis: %s", error)

    async def drain(self, timeout_s: float, hurry: asyncio.Event) -> None:
        """Let running jobs end, and hand over at once what didn't in time, or when there is a hurry."""
        async with self._claiming:
            running = list(self._held)
        if running:
            logger.info("draining %d jobs", len(running))
            hurrying = asyncio.create_task(hurry.wait())
            ending = asyncio.create_task(asyncio.wait(running))
            await asyncio.wait({hurrying, ending}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            hurrying.cancel()
            ending.cancel()
        await self._hand_over_rest()

    def suspect(self, job_ids: Iterable[str]) -> None:
        """Count these jobs, when they are handed over, as if they had taken this worker down."""
        self._suspects.update(job_ids)

    async def finish_job(self, job_id: str, finish: bool, *_: Any) -> None:
        """End a job in Redis, or hand it over if it was given up or cut off by a drain."""
        claim = self._claims[job_id]
        if finish:
            await self._leases.release(claim)
        else:
            await self._leases.hand_over(claim, is_suspect=job_id in self._suspects)
        self._suspects.discard(job_id)

    async def finish_failed_job(self, job_id: str, result_data: bytes | None) -> None:
        """End a job whose payload expired or can't be read."""
        await self.finish_job(job_id, True)

    async def _claim(self) -> float | None:
        """Start what can be claimed; return the seconds until a lease of anybody could run out."""
        async with self._claiming:
            claims, until_expiry_s = await self._leases.claim(self._num_free)
            for claim in claims:
                self._start(claim)
        return until_expiry_s

    async def _hand_over_rest(self) -> None:
        held = dict(self._held)
        for task in held:
            task.cancel()
        if held:
            await asyncio.wait(held)
        for task, claim in held.items():
            if task.cancelled():  # it had not begun, so that nobody ended it
                await self._leases.hand_over(claim, is_suspect=False)

    def _start(self, claim: Claim) -> None:
        task = asyncio.create_task(self._run_after(self.tasks.get(claim.job_id), claim), name=claim.job_id)
        self.tasks[claim.job_id] = task
        self._held[task] = claim
        task.add_done_callback(self._end)

    async def _run_after(self, earlier: asyncio.Task[None] | None, claim: Claim) -> None:
        """Run the job once an attempt of our own, whose lease ran out or which was given up, has ended."""
        if earlier is not None:
            self._on_fenced(claim.job_id)
            await asyncio.wait({earlier})
        self._claims[claim.job_id] = claim
        await self.run_job(claim.job_id, claim.score)

    def _end(self, task: asyncio.Task[None]) -> None:
        claim = self._held.pop(task)
        if self.tasks[claim.job_id] is task:
            del self.tasks[claim.job_id]
        if self._claims.get(claim.job_id) is claim:
            del self._claims[claim.job_id]
            self._more_rows.pop(claim.job_id, None)
        self._job_ended.set()

    @property
    def _num_free(self) -> int:
        """Rows that no job asks for; how many a job asks for is known once its payload is read."""
        return max(self.max_jobs - len(self._held) - sum(self._more_rows.values()), 0)

    async def _pause(self, until_expiry_s: float | None) -> None:
        """Sleep until there may be something to claim."""
        if self._num_free == 0:
            self._job_ended.clear()
            await self._job_ended.wait()
            return
        timeout_s = min(self._idle_s, until_expiry_s or self._idle_s)
        # redis-py's own blpop knows only whole seconds
        await self.pool.execute_command(  # type: ignore[no-untyped-call]
            "BLPOP", self._wake_key, max(timeout_s, 0.01)
        )

    async def _chat(self, ctx: dict[str, Any], payload: bytes) -> None:
        job = wire.decode_job(payload)
        self._more_rows[job.id] = job.n - 1
        try:
            await self._run(job, self._claims[ctx["job_id"]])
        except GivenUp:
            self.suspect([ctx["job_id"]])
            raise Retry from None
