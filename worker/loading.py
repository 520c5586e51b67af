"""Loads the model beside the event loop, so that the heartbeat goes on and a signal still ends the worker."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future

from shared.garbage import lasting
from worker.models.family import Model
from worker.settings import WorkerSettings


async def load_in_thread(settings: WorkerSettings, report: Callable[[str], None]) -> Model:
    """Load the model; `report` is called in the event loop with a few words on how far it is."""
    loop = asyncio.get_running_loop()
    loaded: Future[Model] = Future()

    def report_in_loop(words: str) -> None:
        loop.call_soon_threadsafe(report, words)

    def load() -> None:
        try:
            from worker.models.registry import find_model_type, import_family, load_model

            with lasting():  # ends before there are weights, whose garbage would stay as well
                import_family(find_model_type(settings).family)
            loaded.set_result(load_model(settings, report_in_loop))
        except Exception as error:  # noqa: BLE001  carried over to whoever awaits, whatever it is
            loaded.set_exception(error)

    # A daemon thread, because the interpreter waits for a pool's threads at exit.
    threading.Thread(target=load, name="load", daemon=True).start()
    return await asyncio.wrap_future(loaded)
