"""`worker --model_type internvl2-2b`: one worker process."""

import asyncio
import sys

from shared.logs import configure_logging
from worker.gpu import GpusTaken
from worker.main import run_worker
from worker.models.family import LoadError
from worker.settings import WorkerSettings


def main() -> None:
    """Read the settings and serve until a signal; status 1 if the model can't be loaded."""
    settings = WorkerSettings.read()
    configure_logging(settings.log_level)
    try:
        asyncio.run(run_worker(settings))
    except (LoadError, MemoryError, GpusTaken) as error:  # the operator's to mend
        sys.exit(f"worker: {error}")


if __name__ == "__main__":
    main()
