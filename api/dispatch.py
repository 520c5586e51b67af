"""Sends a job on its way and brings its events back: listen, enqueue, yield, and cancel if left early."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import msgspec
from redis.exceptions import RedisError

from api.mailbox import Mailbox
from api.order import Order
from api.queue import JobQueue
from api.registry import WorkerRegistry
from api.store import MediaStore
from api.subscriber import EventSubscriber
from shared.errors import DeadlineExceeded, QueueFull
from shared.events import JobEvent, is_terminal
from shared.job import ChatJob, JobId
from shared.progress import Progress

logger = logging.getLogger(__name__)


class Dispatcher:
    """Runs jobs; every job it is left with before the end is cancelled."""

    def __init__(
        self, queue: JobQueue, store: MediaStore, subscriber: EventSubscriber, registry: WorkerRegistry
    ) -> None:
        self._registry = registry
        self._queue = queue
        self._store = store
        self._subscriber = subscriber
        self._open: dict[JobId, ChatJob] = {}
        self._cancels: set[asyncio.Task[None]] = set()

    async def stream(self, order: Order, first_wait_s: float | None = None) -> AsyncGenerator[list[JobEvent]]:
        """Yield the job's events up to the terminal one, all that wait at once; leaving early cancels the job.

        A job that Redis forgets is queued again, to be continued from what was yielded.
        The first list is empty if nothing came within `first_wait_s`; None waits as long as it takes.
        Raises DeadlineExceeded or StreamInterrupted.
        """
        job = order.job
        self._open[job.id] = job
        with self._subscriber.open(job.id, partial(self._requeue, order)) as mailbox:
            remaining_s = job.deadline_s - time.time()
            late = DeadlineExceeded(f"The answer was not finished within {job.deadline_s - job.created_s:g} s.")
            timer = asyncio.get_running_loop().call_later(remaining_s, mailbox.fail, late)
            try:
                if (num_waiting := await self._queue.enqueue(job)) is not None:
                    raise self._full(job, num_waiting)
                yield self._noted(job, await _take_within(first_wait_s, mailbox))
                while job.id in self._open:
                    yield self._noted(job, await mailbox.take())
            finally:
                timer.cancel()
                if self._open.pop(job.id, None):
                    self._cancel(job)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Cancel what is still open when it is left, and let the cancels arrive."""
        try:
            yield
        finally:
            while self._open:
                self._cancel(self._open.popitem()[1])
            await asyncio.gather(*self._cancels)

    async def _requeue(self, order: Order, progress: Progress) -> None:
        logger.warning("Redis forgot %s; queued again after event %d", order.job.id, progress.last_seq)
        await self._store.put_all(order.media, order.job.deadline_s)
        await self._queue.enqueue(msgspec.structs.replace(order.job, progress=progress), is_accepted=True)

    def _full(self, job: ChatJob, num_waiting: int) -> QueueFull:
        del self._open[job.id]  # there is nothing to cancel
        return QueueFull(
            f"{num_waiting} requests wait for the model {job.model!r}, as many as may; please try again later.",
            retry_after_s=self._registry.wait_s(job.model, num_waiting),
        )

    def _noted(self, job: ChatJob, events: list[JobEvent]) -> list[JobEvent]:
        """Close the job's account if these are its last events."""
        if events and is_terminal(events[-1]):
            self._open.pop(job.id, None)
        return events

    def _cancel(self, job: ChatJob) -> None:
        """Start a task of its own: whoever leaves may be cancelled and can't wait."""
        task = asyncio.create_task(self._send_cancel(job))
        self._cancels.add(task)
        task.add_done_callback(self._cancels.discard)

    async def _send_cancel(self, job: ChatJob) -> None:
        try:
            await self._queue.cancel(job)
        except RedisError as error:
            logger.warning("could not cancel %s: %s", job.id, error)


async def _take_within(wait_s: float | None, mailbox: Mailbox) -> list[JobEvent]:
    try:
        async with asyncio.timeout(wait_s):
            return await mailbox.take()
    except TimeoutError:
        return []
