"""Whether the worker of this machine, or container, is ready: `python -m baton.health`, for whoever watches it."""

import asyncio
import sys

from baton.fleet import local_workers
from shared.connection import open_redis
from shared.fleet import WorkerState
from shared.settings import Settings


def main() -> None:
    """End with status 0 if a worker here is ready and has a fresh heartbeat, else with 1."""
    sys.exit(0 if asyncio.run(_is_ready(Settings())) else 1)


async def _is_ready(settings: Settings) -> bool:
    async with open_redis(settings) as redis:
        return any(worker.state is WorkerState.READY for worker in (await local_workers(redis)).values())


if __name__ == "__main__":
    main()
