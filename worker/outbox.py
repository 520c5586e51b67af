"""What one claimed job has to say and hasn't said yet."""

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

from shared.errors import JobError
from shared.events import ChoiceFinished, Failed, Finished, FinishReason, JobEvent, Started, TextDelta, Usage
from shared.job import ChatJob
from shared.progress import Progress, TokenLogprob
from worker.lease import Claim


@dataclass(slots=True)
class _Said:
    """What one choice has to say."""

    text: list[str] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    held: list[TokenLogprob] = field(default_factory=list)
    reason: FinishReason | None = None
    """Why it ended, while others go on."""


class Outbox:
    """Numbers a job's events and merges its text while Redis is slower than the model.

    Exactly one terminal event is ever accepted.
    """

    def __init__(self, job: ChatJob, claim: Claim) -> None:
        self.job_id = job.id
        self.gateway = job.gateway
        self.lane = job.lane
        self.log_ttl_s = job.log_ttl_s
        self.holder = claim.holder
        self._last_seq = 0
        self.has_ended = False
        """Whether nothing more is accepted; the terminal event may still wait to be sent."""
        self._job = job
        self._attempt = claim.attempt
        self._start: tuple[int, str, str] | None = None
        self._said: defaultdict[int, _Said] = defaultdict(_Said)
        self._num_held = Counter[int]()
        """By choice, how many tokens wait that earlier events hold."""
        self._ending: tuple[FinishReason, Usage, int] | JobError | None = None

    def resume(self, progress: Progress) -> None:
        """Go on where earlier attempts stopped."""
        self._last_seq = progress.last_seq
        self._num_held.update({index: len(known.held) for index, known in enumerate(progress.choices)})

    def start(self, prompt_tokens: int, fingerprint: str = "", echo: str = "") -> None:
        """Say that the first token is there, what it depends on beside the request, and what stands before it."""
        self._start = prompt_tokens, fingerprint, echo

    def extend(
        self,
        index: int,
        text: str,
        token_ids: tuple[int, ...],
        logprobs: tuple[TokenLogprob, ...] = (),
        held: tuple[TokenLogprob, ...] = (),
    ) -> None:
        """Say what a step added to one choice; the terms are those of `TextDelta`."""
        said = self._said[index]
        said.text.append(text)
        said.token_ids += token_ids
        said.logprobs += logprobs
        num_told_before = min(len(logprobs), self._num_held[index])
        self._num_held[index] -= num_told_before
        del said.held[: len(logprobs) - num_told_before]  # what is told by now need not be held
        said.held += held

    def finish_choice(self, index: int, reason: FinishReason) -> None:
        """Say that one choice is complete, and others are not."""
        self._said[index].reason = reason

    def finish(self, reason: FinishReason, usage: Usage, index: int = 0) -> None:
        """Say that the last choice is complete, and so is the answer."""
        self._end((reason, usage, index))

    def fail(self, error: JobError) -> None:
        """Say that there will be no (further) answer."""
        self._end(error)

    def close(self) -> None:
        """Accept nothing more: the job goes on elsewhere."""
        self.has_ended = True

    def take(self) -> list[JobEvent]:
        """Return what waits, numbered; it waits no longer."""
        events: list[JobEvent] = []
        if self._start is not None:
            events.append(self._started(*self._start))
        for index, said in self._said.items():
            events += self._told(index, said)
        match self._ending:
            case JobError() as error:
                told: dict[str, Any] = {"code": error.code, "message": error.message, "param": error.param}
                events.append(Failed(**self._next(), **told, key_name=self._job.key_name))
            case (reason, usage, index):
                ended: dict[str, Any] = {"reason": reason, "usage": usage, "index": index}
                events.append(Finished(**self._next(), **ended, key_name=self._job.key_name))
        self._start, self._ending = None, None
        self._said.clear()
        return events

    def _told(self, index: int, said: _Said) -> list[JobEvent]:
        events: list[JobEvent] = []
        text = "".join(said.text)
        if said.token_ids or text or said.logprobs:
            told: dict[str, Any] = {"token_ids": tuple(said.token_ids), "logprobs": tuple(said.logprobs)}
            events.append(TextDelta(**self._next(), **told, text=text, index=index, held=tuple(said.held)))
            self._num_held[index] += len(said.held)
        if said.reason is not None:
            events.append(ChoiceFinished(**self._next(), index=index, reason=said.reason))
        return events

    def _end(self, ending: tuple[FinishReason, Usage, int] | JobError) -> None:
        if not self.has_ended:
            self.has_ended, self._ending = True, ending

    def _started(self, prompt_tokens: int, fingerprint: str, echo: str) -> Started:
        job = self._job
        return Started(
            **self._next(),
            prompt_tokens=prompt_tokens,
            model=job.asked_model,
            created_s=job.created_s,
            num_choices=job.n,
            fingerprint=fingerprint,
            calling=job.calling,
            echo=echo,
        )

    def _next(self) -> dict[str, Any]:
        self._last_seq += 1
        return {"job_id": self.job_id, "attempt": self._attempt, "seq": self._last_seq}
