"""One line on its way: asked as an HTTP request would be, and with a patience that no HTTP request has."""

import asyncio
import hashlib
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Self

import msgspec
from redis.exceptions import RedisError

from api.batch.endpoint import Endpoint
from api.batch.lines import MAX_INLINE_PARSE, Line
from api.batch.record import StoredBatch
from api.dispatch import Dispatcher
from api.errors import PRESENTATIONS, error_body
from api.intake import Intake
from api.keyring import ANYBODY, Caller, KeyRing
from api.order import Order
from api.replay import AnswerLog
from api.schema.request import ChatCompletionRequest
from api.settings import ApiSettings
from api.visit import Visit
from shared.errors import (
    CompletionNotFound,
    DeadlineExceeded,
    InvalidApiKey,
    InvalidRequest,
    JobError,
    ModelUnavailable,
    ServerStopping,
    StreamInterrupted,
    TooMuch,
)
from shared.events import Finished, JobEvent, Started, Usage
from shared.job import JobId
from shared.logs import current_job
from shared.tracing import UNTRACED

logger = logging.getLogger(__name__)

OK = 200
PAUSE_S = 1.0
"""Before a line is asked again that could not be asked."""
MAX_BREAKS = 3
"""Answers to one line that may break off."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What HTTP would have said."""

    status: int
    body: bytes
    usage: Usage | None = None
    """None if there is no answer."""

    @classmethod
    def refusing(cls, error: JobError) -> Self:
        """Return an error as HTTP would have told it."""
        return cls(PRESENTATIONS[error.code].status, error_body(error))

    @property
    def is_answer(self) -> bool:
        """Whether it is what the line asked for."""
        return self.status == OK


@dataclass(slots=True)
class _Course:
    """How one attempt went."""

    has_own_timeout: bool = False
    was_queued: bool = False
    has_started: bool = False
    usage: Usage | None = None


class Questions:
    """Asks the lines of one batch.

    A job's id follows from batch, line and attempt, so that who goes on with a dead gateway's batch finds the jobs that
    it left, and listens to them instead of asking again.
    """

    def __init__(
        self,
        batch: StoredBatch,
        endpoint: Endpoint,
        settings: ApiSettings,
        keyring: KeyRing,
        intake: Intake,
        dispatcher: Dispatcher,
        answers: AnswerLog,
    ) -> None:
        self._batch = batch
        self._endpoint = endpoint
        self._priority = settings.batch_priority
        self._keyring = keyring
        self._intake = intake
        self._dispatcher = dispatcher
        self._answers = answers

    @property
    def caller(self) -> Caller:
        """On whose behalf lines are asked; nobody's where the key is gone, which each line then is told."""
        return self._keyring.named(self._batch.owner) or ANYBODY

    @staticmethod
    def digest(batch_id: str, number: int, attempt: int = 0) -> str:
        """Return what names a line of a batch, or a further attempt at it, wherever it is asked."""
        return hashlib.sha256(f"{batch_id}/{number}/{attempt}".encode()).hexdigest()[:32]

    async def ask(self, line: Line) -> Reply:
        """Return what became of the line, however long it takes; raises ServerStopping when this gateway lets go."""
        attempt = num_breaks = 0
        while True:
            course = _Course()
            try:
                return await self._attempt(line, attempt, course)
            except RedisError as error:
                logger.warning("line %d of %s waits for Redis: %s", line.number, self._batch.id, error)
            except ServerStopping:
                raise
            except TooMuch:
                pass
            except JobError as error:
                num_breaks += isinstance(error, StreamInterrupted | CompletionNotFound)
                if not _may_be_asked_again(error, course, num_breaks):
                    return Reply.refusing(error)
                course.was_queued |= not isinstance(error, ModelUnavailable)
            attempt += course.was_queued  # what was not keeps its id
            await asyncio.sleep(PAUSE_S)

    async def _attempt(self, line: Line, attempt: int, course: _Course) -> Reply:
        asked = await self._read(line)
        course.has_own_timeout = asked.timeout is not None
        if (caller := self._keyring.named(self._batch.owner)) is None:
            raise InvalidApiKey(f"The API key {self._batch.owner!r} of this batch is not known any more.")
        order = await self._intake.accept(asked, Visit(UNTRACED, caller))
        kind = order.job.id.rpartition("-")[0]
        job_id = JobId(f"{kind}-{self.digest(self._batch.id, line.number, attempt)}")
        current_job.set(job_id)
        order = replace(order, job=msgspec.structs.replace(order.job, id=job_id))
        async with aclosing(_noted(await self._events(order), course)) as batches:
            answer = await self._endpoint.fold(order.job, batches)
        return Reply(OK, answer.model_dump_json().encode(), course.usage)

    async def _read(self, line: Line) -> ChatCompletionRequest:
        parse = self._endpoint.parse
        asked = parse(line.body) if len(line.body) <= MAX_INLINE_PARSE else await asyncio.to_thread(parse, line.body)
        if asked.stream:
            raise InvalidRequest("A line of a batch is answered whole; leave stream out.", param="stream")
        if asked.priority is not None:
            raise InvalidRequest(f"Lines of a batch have the priority {self._priority}.", param="priority")
        return asked.model_copy(update={"priority": self._priority})

    async def _events(self, order: Order) -> AsyncGenerator[list[JobEvent]]:
        if await self._answers.has(order.job.id):
            return self._answers.follow(order.job.id, after_seq=0)
        return self._dispatcher.stream(order)


async def _noted(batches: AsyncGenerator[list[JobEvent]], course: _Course) -> AsyncGenerator[list[JobEvent]]:
    async with aclosing(batches):
        async for events in batches:
            course.was_queued = True
            for event in events:
                match event:
                    case Started():
                        course.has_started = True
                    case Finished(usage=usage):
                        course.usage = usage
                    case _:
                        pass
            yield events


def _may_be_asked_again(error: JobError, course: _Course, num_breaks: int) -> bool:
    match error:
        case ModelUnavailable():
            return True
        case DeadlineExceeded():  # a line's time is the batch's: what waited behind others has not had its chance
            return not (course.has_started or course.has_own_timeout)
        case StreamInterrupted() | CompletionNotFound():
            return num_breaks < MAX_BREAKS
        case _:
            return False
