"""One batch, driven from wherever it stands to its end, or until another gateway is to go on with it."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass

import msgspec
from redis.asyncio import Redis

from api.batch.asking import Asking
from api.batch.endpoint import ENDPOINTS, Doors
from api.batch.hold import Hold, Holds, LeaseLost
from api.batch.lines import InputCheck, Line, read_lines
from api.batch.pace import Pace
from api.batch.patience import patiently
from api.batch.question import Questions
from api.batch.record import BatchStatus, InputFault, StoredBatch
from api.batch.results import Results, publish
from api.batch.shelf import FileShelf
from api.departure import Departure
from api.dispatch import Dispatcher
from api.keyring import KeyRing
from api.metrics import GatewayMetrics
from api.replay import AnswerLog
from api.settings import ApiSettings
from shared.errors import InternalError, JobError, ServerStopping

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Equipment:
    """What every run of this gateway works with."""

    settings: ApiSettings
    redis: Redis
    shelf: FileShelf
    holds: Holds
    pace: Pace
    keyring: KeyRing
    doors: Doors
    new_dispatcher: Callable[[Departure], Dispatcher]
    """Each run has one of its own, which lets go of its jobs when the run leaves."""
    metrics: GatewayMetrics


class BatchRun:
    """Drives one batch under a hold that the runner keeps; what a lost hold doesn't allow is not written."""

    def __init__(self, equipment: Equipment, hold: Hold) -> None:
        self.hold = hold
        self._equipment = equipment
        self._departure = Departure()
        self._window: asyncio.Timeout | None = None

    async def drive(self) -> None:
        """Bring the batch to its end; raises LeaseLost, or ServerStopping after `leave`."""
        try:
            await self._walk()
        except (LeaseLost, ServerStopping):
            raise
        except JobError as error:
            await self._break_off(error)
        except Exception:  # a batch's outermost boundary: what is broken here would be so at the next gateway
            logger.exception("%s broke", self.hold.batch_id)
            await self._break_off(InternalError())

    def leave(self) -> None:
        """Let go: jobs that are under way go on, for whoever drives the batch next."""
        self._departure.cut()

    def stop_asking(self) -> None:
        """Cancel what is under way; `drive` then looks at what the batch has become."""
        if self._window is not None and not self._window.expired():
            self._window.reschedule(asyncio.get_running_loop().time())

    async def _walk(self) -> None:
        batch = await patiently(self._read)
        while not batch.status.is_end:
            batch = await patiently(self._step)
            logger.info("%s is %s", batch.id, batch.status)

    async def _break_off(self, error: JobError) -> None:
        fault = InputFault(code=error.code, message=error.message)
        await patiently(lambda: self._fail(fault))

    async def _read(self) -> StoredBatch:
        return await self._equipment.holds.read(self.hold)

    async def _step(self) -> StoredBatch:
        """Do what the batch's status asks for, and return it as it stands then; may be done again at any time."""
        batch = await self._read()
        match batch.status:
            case BatchStatus.VALIDATING:
                return await self._check(batch)
            case BatchStatus.IN_PROGRESS:
                await self._answer(batch)
                return await self._look_back()
            case BatchStatus.CANCELLING:
                return await self._end(batch, BatchStatus.CANCELLED)
            case _:
                return await self._end(batch, BatchStatus.COMPLETED)

    async def _check(self, batch: StoredBatch) -> StoredBatch:
        settings = self._equipment.settings
        check = InputCheck(batch.endpoint, settings.max_batch_lines, settings.max_body_bytes)
        found = await check.check(self._pieces(batch))
        if found.faults:
            return await self._fail(*found.faults)
        counted = {"total": found.total, "num_lines": found.num_lines}
        return await self._equipment.holds.advance(
            self.hold, batch, BatchStatus.IN_PROGRESS, model=found.model, **counted
        )

    async def _answer(self, batch: StoredBatch) -> None:
        """Ask all lines that have no answer, until there is none, the window ends, or somebody stops it."""
        dispatcher = self._equipment.new_dispatcher(self._departure)
        asking = self._asking(batch, dispatcher)
        with suppress(TimeoutError):
            async with asyncio.timeout(max(batch.expires_s - time.time(), 0)) as self._window, dispatcher.running():
                try:
                    await asking.ask_all(self._unanswered(batch))
                except* JobError as group:
                    raise group.exceptions[0] from None
        self._window = None
        self._departure.check()

    async def _look_back(self) -> StoredBatch:
        """Decide what comes after the asking."""
        batch = await self._read()
        if batch.status is not BatchStatus.IN_PROGRESS:
            return batch
        if batch.completed + batch.failed >= batch.total:
            return await self._equipment.holds.advance(self.hold, batch, BatchStatus.FINALIZING)
        return await self._end(batch, BatchStatus.EXPIRED) if time.time() >= batch.expires_s else batch

    async def _end(self, batch: StoredBatch, status: BatchStatus) -> StoredBatch:
        """Say of the lines without an answer why they have none, publish the files, and end the batch."""
        results = self._results(batch)
        async for line in self._unanswered(batch):
            await results.omit(line, status)
        await publish(self._equipment.shelf, await self._read())
        return await self._equipment.holds.advance(self.hold, batch, status)

    async def _fail(self, *faults: InputFault) -> StoredBatch:
        written = msgspec.json.encode(faults).decode()
        return await self._equipment.holds.advance(self.hold, await self._read(), BatchStatus.FAILED, faults=written)

    async def _unanswered(self, batch: StoredBatch) -> AsyncIterator[Line]:
        """Yield the lines that are to be answered still; of a file that was not checked, none."""
        if batch.completed + batch.failed >= batch.total:
            return
        answered = await patiently(lambda: self._equipment.holds.recorded(batch))
        async for line in read_lines(self._pieces(batch), self._equipment.settings.max_body_bytes):
            if line.number not in answered:
                yield line

    async def _pieces(self, batch: StoredBatch) -> AsyncIterator[bytes]:
        file = await patiently(lambda: self._equipment.shelf.find(batch.input_file_id, batch.owner))
        async for piece in self._equipment.shelf.read(file, is_patient=True):
            yield piece

    def _asking(self, batch: StoredBatch, dispatcher: Dispatcher) -> Asking:
        equipment = self._equipment
        answers = AnswerLog(equipment.redis, equipment.settings.request_timeout_s, self._departure)
        if (endpoint := ENDPOINTS.get(batch.endpoint)) is None:
            raise LeaseLost  # a newer gateway took it in, and one is to go on with it
        questions = Questions(
            batch,
            endpoint,
            equipment.settings,
            equipment.keyring,
            equipment.doors,
            dispatcher,
            answers,
        )
        return Asking(questions, self._results(batch), equipment.pace, self._departure, batch.model)

    def _results(self, batch: StoredBatch) -> Results:
        return Results(self._equipment.holds, self.hold, batch, self._equipment.metrics)
