"""One line on its way: asked as an HTTP request would be, and with a patience that no HTTP request has."""

import asyncio
import hashlib
import logging
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any, Self

import msgspec
from redis.exceptions import RedisError

from api.batch.endpoint import Doors, Endpoint, Request
from api.batch.lines import MAX_INLINE_PARSE, Line
from api.batch.record import StoredBatch
from api.dispatch import Dispatcher
from api.errors import PRESENTATIONS, error_body
from api.keyring import ANYBODY, Caller, KeyRing
from api.order import Order
from api.replay import AnswerLog
from api.schema.sampling import MAX_PRIORITY
from api.settings import ApiSettings
from api.together import in_turn
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
    """How one attempt went: of the job that runs now, and of all of them the usages."""

    has_own_timeout: bool = False
    was_queued: bool = False
    has_started: bool = False
    usages: list[Usage] = field(default_factory=list)

    def begin(self) -> None:
        """The next job begins."""
        self.was_queued = self.has_started = False


class Questions:
    """Asks the lines of one batch.

    A job's id follows from batch, line and attempt, so that who goes on with a dead gateway's batch finds the jobs that
    it left, and listens to them instead of asking again.
    """

    def __init__(
        self,
        batch: StoredBatch,
        endpoint: Endpoint[Any],
        settings: ApiSettings,
        keyring: KeyRing,
        doors: Doors,
        dispatcher: Dispatcher,
        answers: AnswerLog,
    ) -> None:
        self._batch = batch
        self._endpoint = endpoint
        self._priority = settings.batch_priority
        self._keyring = keyring
        self._doors = doors
        self._dispatcher = dispatcher
        self._answers = answers

    @property
    def caller(self) -> Caller:
        """On whose behalf lines are asked; nobody's where the key is gone, which each line then is told."""
        return (self._keyring.named(self._batch.owner) or ANYBODY).in_background

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
        if self._keyring.named(self._batch.owner) is None:
            raise InvalidApiKey(f"The API key {self._batch.owner!r} of this batch is not known any more.")
        name = self.digest(self._batch.id, line.number, attempt)
        accepted = await self._endpoint.accept(self._doors, asked, Visit(UNTRACED, self.caller, name=name))
        current_job.set(accepted.orders[0].job.id)
        async with aclosing(in_turn(self._events(order, course) for order in accepted.orders)) as batches:
            answer = await accepted.fold(batches)
        return Reply(OK, answer.model_dump_json().encode(), Usage.total(course.usages))

    async def _read(self, line: Line) -> Request:
        parse = self._endpoint.parse
        asked: Request = (
            parse(line.body) if len(line.body) <= MAX_INLINE_PARSE else await asyncio.to_thread(parse, line.body)
        )
        if asked.stream:
            raise InvalidRequest("A line of a batch is answered whole; leave stream out.", param="stream")
        if asked.priority is not None:
            raise InvalidRequest(f"Lines of a batch have the priority {self._priority}.", param="priority")
        return asked.model_copy(update={"priority": min(self._priority, MAX_PRIORITY)})

    async def _events(self, order: Order, course: _Course) -> AsyncGenerator[list[JobEvent]]:
        course.begin()
        order = self._in_its_turn(order)
        if await self._answers.has(order.job.id):
            batches = self._dispatcher.rejoin(order, self._answers.follow(order.job.id, after_seq=0))
        else:
            batches = self._dispatcher.stream(order)
        async with aclosing(batches):
            async for events in batches:
                _note(course, events)
                yield events

    def _in_its_turn(self, order: Order) -> Order:
        """Return the order behind all that other requests can ask for, and with the whole time that a job has."""
        job, now_s = order.job, time.time()
        deadline_s = now_s + job.deadline_s - job.created_s
        return replace(order, job=msgspec.structs.replace(job, priority=self._priority, deadline_s=deadline_s))


def _note(course: _Course, events: list[JobEvent]) -> None:
    course.was_queued = True
    for event in events:
        match event:
            case Started():
                course.has_started = True
            case Finished(usage=usage):
                course.usages.append(usage)
            case _:
                pass


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
