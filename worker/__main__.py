"""`worker --model_type internvl2-2b`: one worker process."""

import asyncio

from shared.logs import configure_logging
from worker.main import run_worker
from worker.settings import WorkerSettings


def main() -> None:
    """Read the settings and serve until a signal."""
    settings = WorkerSettings.read()
    configure_logging(settings.log_level)
    asyncio.run(run_worker(settings))


if __name__ == "__main__":
    main()
