"""Whose an answer is: told by its job while that is open, and by its log once it has ended."""

from collections.abc import Sequence

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
        await self.owned(job_id, [job_id], caller)

    async def owned(self, answer_id: str, job_ids: Sequence[JobId], caller: Caller) -> list[JobId]:
        """Return the jobs of an answer that are there for the caller; raises CompletionNotFound if none is."""
        owned = [job_id for job_id in job_ids if await self._is_owned(job_id, caller)]
        if not owned:
            raise CompletionNotFound(
                f"There is no answer {answer_id[:200]}; it ended too long ago, or never began.", param="id"
            )
        return owned

    async def _is_owned(self, job_id: JobId, caller: Caller) -> bool:
        known = await self._queue.find(job_id) or await self._answers.ending(job_id)
        return known is not None and known.key_name == caller.name
