"""What one claimed job has to say and hasn't said yet."""

from typing import Any

from shared.errors import JobError
from shared.events import Failed, Finished, FinishReason, JobEvent, Started, TextDelta, Usage
from shared.job import ChatJob
from worker.lease import Claim


class Outbox:
    """Numbers a job's events and merges its text while Redis is slower than the model.

    `last_seq` is where an earlier attempt stopped. Exactly one terminal event is ever accepted.
    """

    def __init__(self, job: ChatJob, claim: Claim) -> None:
        self.job_id = job.id
        self.gateway = job.gateway
        self.holder = claim.holder
        self.last_seq = 0
        self.has_ended = False
        """Whether nothing more is accepted; the terminal event may still wait to be sent."""
        self._model, self._created_s = job.asked_model, job.created_s
        self._attempt = claim.attempt
        self._prompt_tokens: int | None = None
        self._text: list[str] = []
        self._token_ids: list[int] = []
        self._ending: tuple[FinishReason, Usage] | JobError | None = None

    def start(self, prompt_tokens: int) -> None:
        """Say that the first token is there."""
        self._prompt_tokens = prompt_tokens

    def extend(self, text: str, token_ids: tuple[int, ...]) -> None:
        """Say what a step added."""
        self._text.append(text)
        self._token_ids += token_ids

    def finish(self, reason: FinishReason, usage: Usage) -> None:
        """Say that the answer is complete."""
        self._end((reason, usage))

    def fail(self, error: JobError) -> None:
        """Say that there will be no (further) answer."""
        self._end(error)

    def close(self) -> None:
        """Accept nothing more: the job goes on elsewhere."""
        self.has_ended = True

    def take(self) -> list[JobEvent]:
        """Return what waits, numbered; it waits no longer."""
        events: list[JobEvent] = []
        if self._prompt_tokens is not None:
            events.append(self._started(self._prompt_tokens))
        if self._token_ids or any(self._text):
            events.append(TextDelta(**self._next(), text="".join(self._text), token_ids=tuple(self._token_ids)))
        match self._ending:
            case JobError() as error:
                events.append(Failed(**self._next(), code=error.code, message=error.message, param=error.param))
            case (reason, usage):
                events.append(Finished(**self._next(), reason=reason, usage=usage))
        self._prompt_tokens, self._text, self._token_ids, self._ending = None, [], [], None
        return events

    def _end(self, ending: tuple[FinishReason, Usage] | JobError) -> None:
        if not self.has_ended:
            self.has_ended, self._ending = True, ending

    def _started(self, prompt_tokens: int) -> Started:
        model, created_s = self._model, self._created_s
        return Started(**self._next(), prompt_tokens=prompt_tokens, model=model, created_s=created_s)

    def _next(self) -> dict[str, Any]:
        self.last_seq += 1
        return {"job_id": self.job_id, "attempt": self._attempt, "seq": self.last_seq}
