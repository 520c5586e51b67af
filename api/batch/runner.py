"""Every gateway's part in the batches of all: it takes what nobody drives, keeps it, and lets go when it leaves."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from redis.exceptions import RedisError

from api.batch.hold import LeaseLost
from api.batch.record import BatchStatus
from api.batch.run import BatchRun, Equipment
from api.departure import Departure
from api.vigil import vigil
from shared.errors import ServerStopping

logger = logging.getLogger(__name__)

MAX_RUNS = 8
"""Batches that one gateway drives at once; the others wait for this or another one."""
TICK_S = 1.0
NEXT_CLAIM_S = 0.2
"""Between two claims of one gateway, in which another one may take its share."""
LEAVE_S = 3.0
"""What lines may take to let go of their jobs."""


class BatchRunner:
    """Looks for work once a second, and when poked."""

    def __init__(self, equipment: Equipment, departure: Departure) -> None:
        self._equipment = equipment
        self._departure = departure
        self._runs: dict[BatchRun, asyncio.Task[None]] = {}
        self._poked = asyncio.Event()
        departure.tell(self.poke)

    def poke(self) -> None:
        """Look at once: a batch was made, or told to stop, or has ended."""
        self._poked.set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Drive batches in the background until left."""
        try:
            async with vigil(self._follow(), "batches"):
                yield
        finally:
            await self._leave(*self._runs)

    async def _follow(self) -> None:
        while not self._departure.is_announced:
            pause_s = TICK_S
            self._poked.clear()
            try:
                await self._renew()
                if len(self._runs) < MAX_RUNS and await self._claim():
                    pause_s = NEXT_CLAIM_S
            except RedisError as error:
                logger.debug("batches wait for Redis: %s", error)
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._poked.wait()
        await self._leave(*self._runs)

    async def _renew(self) -> None:
        runs = list(self._runs)
        if not runs:
            return
        for run, status in zip(runs, await self._equipment.holds.renew([run.hold for run in runs]), strict=True):
            if status is None:
                await self._leave(run)
            elif status is BatchStatus.CANCELLING:
                run.stop_asking()

    async def _claim(self) -> bool:
        if (hold := await self._equipment.holds.claim()) is None:
            return False
        run = BatchRun(self._equipment, hold)
        self._runs[run] = asyncio.create_task(self._drive(run), name=hold.batch_id)
        return True

    async def _drive(self, run: BatchRun) -> None:
        try:
            await run.drive()
        except (LeaseLost, ServerStopping):
            logger.info("%s is left to another gateway", run.hold.batch_id)
        finally:
            del self._runs[run]
            self.poke()

    async def _leave(self, *runs: BatchRun) -> None:
        """Let go of these batches: their jobs go on, and whoever claims them next listens to those."""
        tasks = [self._runs[run] for run in runs if run in self._runs]
        for run in runs:
            run.leave()
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=LEAVE_S)
            for task in late:
                task.cancel()
            await asyncio.wait(tasks)
        for run in runs:
            with suppress(RedisError):  # the lease runs out by itself
                await self._equipment.holds.release(run.hold)
