"""Responses that nobody waits for: this gateway watches them until their end or its own."""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager

from api.dispatch import Dispatcher
from api.order import Order
from shared.errors import JobError
from shared.events import JobEvent
from shared.logs import current_job

logger = logging.getLogger(__name__)


class Background:
    """Watches jobs, so that one which Redis forgets is queued again; they go on when it stops."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._watches: set[asyncio.Task[None]] = set()

    async def start(self, order: Order) -> None:
        """Return once the job is queued, or raise TooMuch."""
        batches = self._dispatcher.stream(order, first_wait_s=0)
        await anext(batches)
        watch = asyncio.create_task(_follow(order, batches))
        self._watches.add(watch)
        watch.add_done_callback(self._watches.discard)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Stop watching when it is left."""
        try:
            yield
        finally:
            for watch in list(self._watches):
                watch.cancel()
            await asyncio.gather(*self._watches, return_exceptions=True)


async def _follow(order: Order, batches: AsyncGenerator[list[JobEvent]]) -> None:
    current_job.set(order.job.id)
    try:
        async with aclosing(batches):
            async for _ in batches:
                pass
    except JobError as error:  # whoever reads the response is told by its log
        logger.info("%s is watched no longer: %s", order.job.id, error.code)
