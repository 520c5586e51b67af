"""Whose an answer is: told by its job while that is open, and by its log once it has ended."""

from api.keyring import Caller
from api.queue import JobQueue
from api.replay import AnswerLog
from shared.errors import CompletionNotFound
from shared.job import JobId


class Ownership:
    """What belongs to another API key is not there."""

    def __init__(self, queue: JobQueue, answers: AnswerLog) -> None:
        self._queue = queue
        self._answers = answers

    async def check(self, job_id: JobId, caller: Caller) -> None:
        """Raise CompletionNotFound unless there is such an answer, and the caller's API key asked for it."""
        known = await self._queue.find(job_id) or await self._answers.ending(job_id)
        if known is None or known.key_name != caller.name:
            raise CompletionNotFound(
                f"There is no answer {job_id[:200]}; it ended too long ago, or never began.", param="id"
            )
