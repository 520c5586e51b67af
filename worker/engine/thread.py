"""The engine's own thread: the one bridge between the event loop and the model."""

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import NamedTuple

from worker.engine.engine import Engine, StepOutput
from worker.engine.failure import EngineBroken, EngineHung
from worker.engine.sequence import Sequence

logger = logging.getLogger(__name__)

WATCH_INTERVAL_S = 1.0
"""How often somebody looks whether a step takes too long."""

OnStep = Callable[[list[StepOutput]], object]


class Step(NamedTuple):
    """One step as it was."""

    began_s: float
    """In Unix time, as the end."""
    ended_s: float
    num_sequences: int
    """Of which it said something."""
    num_read_tokens: int


class EngineThread:
    """Runs the engine while there is work and sleeps while there is none.

    `on_step` is called in this thread after each step that produced something; it must not block.
    `ended` raises EngineBroken if no further step can be made.
    """

    def __init__(self, engine: Engine, on_step: OnStep) -> None:
        self._engine = engine
        self._on_step = on_step
        self.ended: Future[None] = Future()
        self.last_step = Step(0.0, 0.0, 0, 0)
        """The one that `on_step` is called after."""
        self._inbox: SimpleQueue[Callable[[], StepOutput | None] | None] = SimpleQueue()
        self._step_began_s: float | None = None
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        """Start stepping."""
        self._thread.start()

    def stop(self, timeout_s: float | None = None) -> None:
        """End after the current step, waiting no longer than that; whatever still runs is dropped in silence."""
        self._inbox.put(None)
        self._thread.join(timeout_s)

    def submit(self, sequence: Sequence) -> None:
        """Put a sequence in line; its outputs come through `on_step`."""
        self._inbox.put(lambda: self._engine.add(sequence))

    def abort(self, sequence_id: str) -> None:
        """Drop a sequence before the next step; its last output says it was cancelled."""
        self._inbox.put(lambda: self._engine.abort(sequence_id))

    async def hung(self, step_timeout_s: float) -> EngineHung:
        """Return once a step has taken longer than that."""
        while True:
            began_s = self._step_began_s
            if began_s is not None and time.monotonic() > began_s + step_timeout_s:
                return EngineHung(self._engine.running_ids)
            await asyncio.sleep(min(step_timeout_s / 4, WATCH_INTERVAL_S))

    def between_steps(self, action: Callable[[], None]) -> Future[None]:
        """Run `action` in this thread once what was asked for before is done; the future says how it ended."""
        ended: Future[None] = Future()

        def run() -> None:
            try:
                action()
            except Exception as error:  # noqa: BLE001  carried over to whoever awaits, whatever it is
                ended.set_exception(error)
            else:
                ended.set_result(None)

        self._inbox.put(run)
        return ended

    def _run(self) -> None:
        try:
            self._step_on()
        except EngineBroken as broken:
            self.ended.set_exception(broken)
        except Exception:  # whatever it was: a worker whose engine is gone must not hold its jobs
            logger.exception("the engine broke")
            self.ended.set_exception(EngineBroken(self._engine.running_ids))
        else:
            self.ended.set_result(None)

    def _step_on(self) -> None:
        while self._obey():
            began_s, self._step_began_s = time.time(), time.monotonic()
            outputs = self._engine.step()
            self._step_began_s = None
            self.last_step = Step(began_s, time.time(), len(outputs), self._engine.num_just_read)
            if outputs:
                self._on_step(outputs)

    def _obey(self) -> bool:
        """Carry out what the event loop asked for; wait for it while there is nothing to step."""
        while not self._inbox.empty() or not self._engine.has_work:
            if (command := self._inbox.get()) is None:
                return False
            if (output := command()) is not None:
                self._on_step([output])
        return True
