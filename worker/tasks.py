"""The jobs that one worker holds, by id."""

from collections import deque

from shared.job import JobId
from worker.choices import ChoiceId
from worker.engine.engine import StepOutput
from worker.engine.thread import Step
from worker.task import ChatTask

MAX_EARLY_CANCELS = 1000
"""Cancels that are remembered, of jobs that come after them or have ended before."""


class Tasks:
    """Where engine steps, cancels and lost leases find them."""

    def __init__(self) -> None:
        self._tasks: dict[str, ChatTask] = {}
        self._left: deque[JobId] = deque(maxlen=MAX_EARLY_CANCELS)

    def __len__(self) -> int:
        return len(self._tasks)

    def add(self, task: ChatTask) -> None:
        """Take a job in."""
        self._tasks[task.job.id] = task
        if task.job.id in self._left:
            task.cancel()

    def remove(self, task: ChatTask) -> None:
        """Forget a job that ended."""
        if self._tasks.get(task.job.id) is task:  # and not a later attempt's
            del self._tasks[task.job.id]

    def deliver(self, outputs: list[StepOutput], step: Step) -> None:
        """Hand each output of an engine step to its job."""
        for output in outputs:
            if (task := self._tasks.get(ChoiceId.parse(output.sequence_id).job_id)) is not None:
                task.deliver(output, step)

    def cancel(self, job_id: JobId) -> None:
        """Stop a job whose client left, even if it was claimed so lately that it comes after this."""
        if (task := self._tasks.get(job_id)) is not None:
            task.cancel()
        else:
            self._left.append(job_id)

    def fence(self, job_id: JobId) -> None:
        """Drop a job that somebody else holds."""
        if (task := self._tasks.get(job_id)) is not None:
            task.fence()
