"""What the load generator itself costs, so that a slow client is not taken for a slow server."""

import asyncio
import time
from array import array
from contextlib import suppress
from types import TracebackType
from typing import Self

TICK_S = 0.01


class Gauge:
    """Looks, while its context is open, how late the event loop wakes up and how much processor time is used."""

    def __init__(self) -> None:
        self.lags_s: array[float] = array("d")
        """Seconds by which each tick came late."""
        self.core_share = 0.0
        """Processor time of this process over the time that passed."""

    async def __aenter__(self) -> Self:
        self._began_s, self._used_s = time.monotonic(), time.process_time()
        self._ticking = asyncio.create_task(self._tick())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ticking.cancel()
        with suppress(asyncio.CancelledError):
            await self._ticking
        self.core_share = (time.process_time() - self._used_s) / (time.monotonic() - self._began_s)

    async def _tick(self) -> None:
        while True:
            due_s = time.monotonic() + TICK_S
            await asyncio.sleep(TICK_S)
            self.lags_s.append(max(0.0, time.monotonic() - due_s))
