"""What goes on behind a gateway's requests: begun with the gateway, and ended with it."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any


@asynccontextmanager
async def vigil(work: Coroutine[Any, Any, None], name: str) -> AsyncIterator[None]:
    """Do the work in the background until left; what it broke on is raised then."""
    task = asyncio.create_task(work, name=name)
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
