"""Sends a job on its way and brings its events back: listen, enqueue, yield, and cancel if left early."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from functools import partial

import msgspec
from redis.exceptions import RedisError

from api.admission import Admission
from api.departure import Departure
from api.mailbox import Mailbox
from api.metrics import Account, GatewayMetrics
from api.order import Order
from api.position import QueuePositions
from api.queue import JobQueue
from api.responses.archive import ResponseArchive
from api.store import MediaStore
from api.subscriber import EventSubscriber
from shared.errors import DeadlineExceeded, ServerStopping, TooMuch
from shared.events import JobEvent, is_terminal
from shared.job import ChatJob, JobId
from shared.progress import Progress

logger = logging.getLogger(__name__)


class Dispatcher:
    """Runs jobs; every job whose client leaves before the end is cancelled."""

    def __init__(
        self,
        queue: JobQueue,
        admission: Admission,
        store: MediaStore,
        subscriber: EventSubscriber,
        positions: QueuePositions,
        metrics: GatewayMetrics,
        departure: Departure,
        archive: ResponseArchive,
    ) -> None:
        self._archive = archive
        self._departure = departure
        self._queue = queue
        self._admission = admission
        self._positions = positions
        self._metrics = metrics
        self._store = store
        self._subscriber = subscriber
        self._open: dict[JobId, Order] = {}
        self._farewells: set[asyncio.Task[None]] = set()

    async def stream(self, order: Order, first_wait_s: float | None = None) -> AsyncGenerator[list[JobEvent]]:
        """Yield the job's events up to the terminal one, all that wait at once.

        Leaving early cancels the job, unless it runs in the background.
        A job that Redis forgets is queued again, to be continued from what was yielded.
        The first list is empty if nothing came within `first_wait_s`; None waits as long as it takes.
        Raises TooMuch, DeadlineExceeded or StreamInterrupted; or ServerStopping, and then the job goes on, because
        its client may hear the rest of it at another gateway.
        """
        job = order.job
        with (
            self._subscriber.open(job.id, partial(self._requeue, order), joins=not order.needs_all_events) as mailbox,
            self._departure.watched(mailbox.fail),
        ):
            self._open[job.id] = order
            remaining_s = job.deadline_s - time.time()
            late = DeadlineExceeded(f"The answer was not finished within {job.deadline_s - job.created_s:g} s.")
            timer = asyncio.get_running_loop().call_later(remaining_s, mailbox.fail, late)
            try:
                await self._admit(order)
                with self._metrics.account(job) as account:
                    events = await _take_within(first_wait_s, mailbox)
                    if not events:
                        with self._positions.watching(job):
                            yield events
                            events = await mailbox.take()
                    yield self._noted(account, job, events)
                    while job.id in self._open:
                        yield self._noted(account, job, await mailbox.take())
            except ServerStopping:
                del self._open[job.id]
                raise
            finally:
                timer.cancel()
                is_left = self._open.pop(job.id, None) is not None
                self._part(order, is_left=is_left)

    async def rejoin(self, order: Order, batches: AsyncGenerator[list[JobEvent]]) -> AsyncGenerator[list[JobEvent]]:
        """Yield the events of a job that was queued before, as they are read elsewhere; leaving is as with `stream`."""
        self._open[order.job.id] = order
        try:
            async with aclosing(batches):
                async for events in batches:
                    if is_terminal(events[-1]):
                        del self._open[order.job.id]
                    yield events
        except ServerStopping:
            del self._open[order.job.id]
            raise
        finally:
            self._part(order, is_left=self._open.pop(order.job.id, None) is not None)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Cancel what is still open when it is left, and let the cancels arrive."""
        try:
            yield
        finally:
            while self._open:
                self._part(self._open.popitem()[1], is_left=True)
            await asyncio.gather(*self._farewells)

    async def _requeue(self, order: Order, progress: Progress) -> None:
        self._metrics.requeues.inc()
        logger.warning("Redis forgot %s; queued again after event %d", order.job.id, progress.last_seq)
        await self._store.put_all(order.media, order.job.deadline_s)
        if order.is_background:  # its log is all that anybody reads, and has to be whole
            progress = Progress()
            await self._keep(order)
        job = msgspec.structs.replace(order.job, progress=progress)
        await self._queue.enqueue(job, order.caller, is_accepted=True)

    async def _admit(self, order: Order) -> None:
        began_s = time.time()
        try:
            await self._keep(order)
            await self._admission.admit(order)
        except TooMuch:
            del self._open[order.job.id]  # there is nothing to cancel
            if order.kept is not None:
                await self._archive.delete(order.kept.id)
            raise
        finally:
            order.span.record("enqueue", began_s, time.time(), {"gen_ai.request.model": order.job.asked_model})

    def _noted(self, account: Account, job: ChatJob, events: list[JobEvent]) -> list[JobEvent]:
        """Close the job's account if these are its last events."""
        account.note(events)
        if events and is_terminal(events[-1]):
            self._open.pop(job.id, None)
        return events

    async def _keep(self, order: Order) -> None:
        if order.kept is not None:
            await self._archive.keep(order.kept, order.job)

    def _part(self, order: Order, *, is_left: bool) -> None:
        """Start a task of its own: whoever leaves may be cancelled and can't wait."""
        is_unwanted = is_left and not order.is_background
        if not is_unwanted and order.kept is None:
            return
        task = asyncio.create_task(self._say_farewell(order, is_unwanted))
        self._farewells.add(task)
        task.add_done_callback(self._farewells.discard)

    async def _say_farewell(self, order: Order, is_unwanted: bool) -> None:
        try:
            if is_unwanted:
                await self._queue.cancel(order.job)
            if order.kept is not None:
                await self._archive.weigh_log(order.kept.id)
        except RedisError as error:
            logger.warning("could not cancel or weigh %s: %s", order.job.id, error)


async def _take_within(wait_s: float | None, mailbox: Mailbox) -> list[JobEvent]:
    try:
        async with asyncio.timeout(wait_s):
            return await mailbox.take()
    except TimeoutError:
        return []
