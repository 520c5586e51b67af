"""The time in which a batch's lines are asked: as many at once as there is room for, until none is left."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import suppress

from redis.exceptions import RedisError

from api.batch.hold import LeaseLost
from api.batch.lines import Line
from api.batch.pace import Pace
from api.batch.question import Questions, Reply
from api.batch.results import Results
from api.departure import Departure
from shared.errors import InternalError, ServerStopping

logger = logging.getLogger(__name__)

ROOM_PAUSE_S = 0.25
"""Between looks for room, unless a line ends meanwhile."""


class Asking:
    """Ends early, and without an error, once `departure` is cut; jobs that are under way then go on."""

    def __init__(self, questions: Questions, results: Results, pace: Pace, departure: Departure, model: str) -> None:
        self._questions = questions
        self._results = results
        self._pace = pace
        self._departure = departure
        self._model = model
        self._under_way: set[asyncio.Task[None]] = set()
        self._line_ended = asyncio.Event()

    async def ask_all(self, lines: AsyncIterator[Line]) -> None:
        """Ask these lines; cancelled, it cancels what is under way."""
        async with asyncio.TaskGroup() as group:
            async for line in lines:
                if not await self._wait_for_room():
                    return
                task = group.create_task(self._ask(line))
                self._under_way.add(task)
                task.add_done_callback(self._forget)

    async def _wait_for_room(self) -> bool:
        """Return True once another line may be asked, False if none is to be asked any more."""
        while not self._departure.is_cut:
            self._line_ended.clear()
            with suppress(RedisError):
                if await self._pace.has_room(self._model, self._questions.caller, len(self._under_way)):
                    return True
            with suppress(TimeoutError):
                async with asyncio.timeout(ROOM_PAUSE_S):
                    await self._line_ended.wait()
        return False

    async def _ask(self, line: Line) -> None:
        try:
            await self._results.answer(line, await self._reply(line))
        except ServerStopping:
            pass
        except LeaseLost:
            self._departure.cut()

    async def _reply(self, line: Line) -> Reply:
        try:
            return await self._questions.ask(line)
        except ServerStopping:
            raise
        except Exception:  # a line's outermost boundary, as a route's: a bug costs one line
            logger.exception("line %d broke", line.number)
            return Reply.refusing(InternalError())

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        self._line_ended.set()
