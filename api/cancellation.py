"""Cancels a job by its id alone, from whichever gateway hears the wish."""

import asyncio
import time

from api.keyring import Caller
from api.queue import JobQueue
from shared.job import JobId

PAUSE_S = 0.05
NUM_LOOKS = 40
"""Until it is told again: by then somebody else may hold a job whose worker died before it could end it."""
MAX_WAIT_S = 10.0


class Canceller:
    """Ends jobs on behalf of whoever asked for them; what has ended stays as it is."""

    def __init__(self, queue: JobQueue) -> None:
        self._queue = queue

    async def cancel(self, job_id: JobId, caller: Caller) -> bool:
        """Cancel an open job of the caller's API key and wait for its end; False if there is none of that id.

        The end is told by the job's log. A worker that doesn't listen is waited for no longer than `MAX_WAIT_S`.
        """
        job = await self._queue.find(job_id)
        if job is None or job.key_name != caller.name:
            return False
        late_s = time.monotonic() + MAX_WAIT_S
        while job is not None and time.monotonic() < late_s:
            await self._queue.cancel(job)
            await self._wait(job_id)
            job = await self._queue.find(job_id)
        return True

    async def _wait(self, job_id: JobId) -> None:
        for _ in range(NUM_LOOKS):
            if not await self._queue.is_open(job_id):
                return
            await asyncio.sleep(PAUSE_S)
