"""A response as its events add up: whoever reads a job's log from its beginning comes to the same one. Pure."""

from collections.abc import AsyncIterator, Iterable
from typing import Any, assert_never

from api.completion import failure
from api.errors import PRESENTATIONS
from api.responses.output import Change, Output
from api.responses.wording import reworded
from api.schema.responses_object import (
    IncompleteDetails,
    InputTokensDetails,
    ItemStatus,
    ResponseError,
    ResponseObject,
    ResponseUsage,
    Status,
)
from shared.errors import DeadlineExceeded, ErrorCode, InvalidRequest, JobError, TooMuch
from shared.events import ChoiceFinished, Failed, Finished, FinishReason, JobEvent, Started, TextDelta, Usage
from shared.job import Message, Role, TextPart
from shared.kept import KeptResponse

_STATUSES: dict[FinishReason, Status] = {
    FinishReason.STOP: "completed",
    FinishReason.LENGTH: "incomplete",
    FinishReason.CANCELLED: "cancelled",
}


class Draft:
    """Begins as it was accepted, and takes the job's events in their order."""

    def __init__(self, kept: KeptResponse) -> None:
        self.heading = ResponseObject.model_validate_json(kept.heading)
        self.output = Output(kept.id)
        self._places = kept.places
        self._status: Status = self.heading.status
        self._error: JobError | None = None
        self._usage: Usage | None = None

    def add(self, event: JobEvent) -> list[Change]:
        """Take the next event, and return what it adds to the output."""
        match event:
            case Started():
                self._status = "in_progress"
                return self.output.start(event)
            case TextDelta():
                return self.output.add(event)
            case Finished():
                self._status, self._usage = _STATUSES[event.reason], event.usage
                return [] if event.reason is FinishReason.CANCELLED else self.output.finish()
            case Failed():
                self._status, self._error = "failed", reworded(failure(event), self._places)
                return []
            case ChoiceFinished():
                return []
            case _:
                assert_never(event)

    def add_all(self, events: Iterable[JobEvent]) -> None:
        """Take the next events."""
        for event in events:
            self.add(event)

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
    def item_status(self) -> ItemStatus:
        """How far its items are."""
        if not self.has_ended:
            return "in_progress"
        return "completed" if self._status == "completed" else "incomplete"

    def said(self) -> Message:
        """The answer, as the conversation goes on with it."""
        parts = (TextPart(self.output.text),) if self.output.text or not self.output.calls else ()
        return Message(Role.ASSISTANT, parts, self.output.calls)

    def response(self) -> ResponseObject:
        """The whole response as it stands."""
        items = self.output.shown(self.item_status, is_whole=self.has_ended)
        changed: dict[str, Any] = {"status": self._status, "output": items}
        if self._status == "incomplete":
            changed["incomplete_details"] = IncompleteDetails()
        if self._error is not None:
            changed["error"] = _shown(self._error)
        if self._usage is not None and self._status != "cancelled":
            changed["usage"] = _usage(self._usage)
        return self.heading.model_copy(update=changed)


async def fold_response(kept: KeptResponse, batches: AsyncIterator[list[JobEvent]]) -> ResponseObject:
    """Return the whole response, or raise why it failed."""
    draft = Draft(kept)
    async for events in batches:
        draft.add_all(events)
    if draft.error is not None:
        raise draft.error
    return draft.response()


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
