"""A response as its events add up: whoever reads a job's log from its beginning comes to the same one. Pure."""

from collections.abc import Iterable
from typing import Any, assert_never

from api.completion import failure, logprobs_of
from api.errors import PRESENTATIONS
from api.responses.wording import reworded
from api.schema.responses_object import (
    IncompleteDetails,
    InputTokensDetails,
    OutputMessage,
    OutputText,
    ResponseError,
    ResponseObject,
    ResponseUsage,
    Status,
)
from shared.errors import DeadlineExceeded, ErrorCode, InvalidRequest, JobError, TooMuch
from shared.events import ChoiceFinished, Failed, Finished, FinishReason, JobEvent, Started, TextDelta, Usage
from shared.kept import KeptResponse
from shared.progress import TokenLogprob

_STATUSES: dict[FinishReason, Status] = {
    FinishReason.STOP: "completed",
    FinishReason.LENGTH: "incomplete",
    FinishReason.CANCELLED: "cancelled",
}


class Draft:
    """Begins as it was accepted, and takes the job's events in their order."""

    def __init__(self, kept: KeptResponse) -> None:
        self.heading = ResponseObject.model_validate_json(kept.heading)
        self.message_id = kept.id.replace("resp_", "msg_", 1)
        self._places = kept.places
        self._status: Status = self.heading.status
        self._has_started = False
        self._text: list[str] = []
        self._logprobs: list[TokenLogprob] = []
        self._part: OutputText | None = None
        self._error: JobError | None = None
        self._usage: Usage | None = None

    def add(self, events: Iterable[JobEvent]) -> None:
        """Take the next events."""
        self._part = None
        for event in events:
            match event:
                case Started():
                    self._status, self._has_started = "in_progress", True
                case TextDelta():
                    self._text.append(event.text)
                    self._logprobs += event.logprobs
                case Finished():
                    self._status = _STATUSES[event.reason]
                    self._usage = event.usage
                case Failed():
                    self._status, self._error = "failed", reworded(failure(event), self._places)
                case ChoiceFinished():
                    pass
                case _:
                    assert_never(event)

    def lose(self) -> None:
        """Say that the job is gone, and never said its end."""
        self._status = "failed"
        self._error = DeadlineExceeded("The response ended without an answer; it took longer than it may, or was lost.")

    @property
    def status(self) -> Status:
        """How far it is."""
        return self._status

    @property
    def has_ended(self) -> bool:
        """Whether it will not change any more."""
        return self._status not in {"queued", "in_progress"}

    @property
    def error(self) -> JobError | None:
        """Why it failed, if it did."""
        return self._error

    @property
    def text(self) -> str:
        """What the model said so far."""
        return "".join(self._text)

    def part(self) -> OutputText:
        """The answer's text so far, made once for all events that show it."""
        if self._part is None:
            self._part = OutputText(text=self.text, logprobs=logprobs_of(self._logprobs))
        return self._part

    def message(self) -> OutputMessage:
        """The answer so far."""
        content = [self.part()] if self._has_started else []
        return OutputMessage(id=self.message_id, status=self._message_status(), content=content)

    def response(self) -> ResponseObject:
        """The whole response as it stands."""
        changed: dict[str, Any] = {"status": self._status, "output": [self.message()] if self._has_started else []}
        if self._status == "incomplete":
            changed["incomplete_details"] = IncompleteDetails()
        if self._error is not None:
            changed["error"] = _shown(self._error)
        if self._usage is not None and self._status != "cancelled":
            changed["usage"] = _usage(self._usage)
        return self.heading.model_copy(update=changed)

    def _message_status(self) -> Any:
        if not self.has_ended:
            return "in_progress"
        return "completed" if self._status == "completed" else "incomplete"


def _shown(error: JobError) -> ResponseError:
    return ResponseError(
        code=_code(error), message=error.message, param=error.param, type=PRESENTATIONS[error.code].type
    )


def _code(error: JobError) -> str:
    """One of the codes that OpenAI has for a failed response."""
    if error.code is ErrorCode.INVALID_MEDIA:
        return "invalid_image"
    if isinstance(error, InvalidRequest):
        return "invalid_prompt"
    return "rate_limit_exceeded" if isinstance(error, TooMuch) else "server_error"


def _usage(usage: Usage) -> ResponseUsage:
    return ResponseUsage(
        input_tokens=usage.prompt_tokens,
        input_tokens_details=InputTokensDetails(cached_tokens=usage.cached_tokens),
        output_tokens=usage.completion_tokens,
        total_tokens=usage.prompt_tokens + usage.completion_tokens,
    )
