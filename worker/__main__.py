"""`worker --model_type internvl2-2b`: one worker process."""

import os
import sys

import uvloop

from shared.logs import configure_logging
from worker.engine.failure import EngineBroken, EngineHung
from worker.gpu import GpusTaken
from worker.main import new_worker_id, run_worker
from worker.metrics import PortTaken
from worker.models.family import LoadError
from worker.settings import WorkerSettings


def main() -> None:
    """Read the settings and serve until a signal; status 1 if the model can't be loaded or go on."""
    settings = WorkerSettings.read()
    worker_id = new_worker_id()
    configure_logging(settings.log_level, settings.log_format, worker_id)
    try:
        uvloop.run(run_worker(settings, worker_id))
    except EngineHung as error:  # an orderly end would wait for the device, and that is what hangs
        sys.stderr.write(f"worker: {error}\n")
        os._exit(1)
    except (LoadError, MemoryError, GpusTaken, PortTaken, EngineBroken) as error:  # the operator's to mend
        sys.exit(f"worker: {error}")


if __name__ == "__main__":
    main()
