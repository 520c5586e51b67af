"""Events to OpenAI's response events, as SSE frames. Pure.

Sequence numbers are those of the job's log, moved up by the events that come before the first one, so that every
gateway numbers alike. A slow client's deltas may be joined under the number of the last one: numbers only rise,
and what follows any of them is what its client has not got yet.
"""

from collections.abc import Iterable, Iterator
from typing import assert_never

from api.completion import json_line, logprobs_of, on_one_line
from api.responses.draft import Draft
from api.responses.wording import reworded
from api.schema import responses_events as schema
from api.schema.responses_object import OutputMessage, OutputText
from shared.errors import JobError, StreamInterrupted
from shared.events import ChoiceFinished, Failed, Finished, FinishReason, JobEvent, Started, TextDelta
from shared.kept import KeptResponse

_DELTA = "response.output_text.delta"


class ResponseWriter:
    """Writes one job's events, from the log's first one on; what a client has already is only added up.

    `starting_after` is the number of the last event that the client has, or None.
    """

    def __init__(self, kept: KeptResponse, starting_after: int | None = None) -> None:
        self._draft = Draft(kept)
        self._places = kept.places
        self._delivered = -1 if starting_after is None else starting_after
        self._is_background = self._draft.heading.background
        self._first = 2 + self._is_background
        self._head, self._middle = self._delta_borders()

    def opening(self) -> bytes:
        """The frames that come before any event of the job."""
        second = "response.queued" if self._is_background else "response.in_progress"
        heading = self._draft.heading
        created = schema.ResponseEvent(type="response.created", sequence_number=0, response=heading)
        return self._framed([created, schema.ResponseEvent(type=second, sequence_number=1, response=heading)])

    def frames(self, events: Iterable[JobEvent]) -> bytes:
        """The frames of these events, ready to be sent in one piece."""
        return b"".join([self._frame(event) for event in events])

    def broken(self, error: JobError) -> bytes:
        """The last frame of a stream that broke; its number is the last one that was sent."""
        return self._error(error, max(self._delivered, 0))

    def _frame(self, event: JobEvent) -> bytes:
        number = event.seq + self._first
        self._draft.add([event])
        match event:
            case TextDelta():
                return self._delta(event, number)
            case Started():
                return self._framed(self._beginning())
            case Finished():
                return self._last_frames(event, number)
            case Failed():
                failed = schema.ResponseEvent(
                    type="response.failed", sequence_number=number, response=self._draft.response()
                )
                return self._framed([failed])
            case ChoiceFinished():
                return b""
            case _:
                assert_never(event)

    def _beginning(self) -> Iterator[schema.StreamEvent]:
        draft, id_ = self._draft, self._draft.message_id
        if self._is_background:
            running = draft.heading.model_copy(update={"status": "in_progress"})
            yield schema.ResponseEvent(type="response.in_progress", sequence_number=2, response=running)
        number, item = self._first, OutputMessage(id=id_)
        yield schema.MessageEvent(type="response.output_item.added", sequence_number=number, item=item)
        number, part = number + 1, OutputText()
        yield schema.PartEvent(type="response.content_part.added", sequence_number=number, item_id=id_, part=part)

    def _delta(self, event: TextDelta, number: int) -> bytes:
        if number <= self._delivered or not (event.text or event.logprobs):
            return b""
        if event.logprobs:
            id_, logprobs = self._draft.message_id, logprobs_of(event.logprobs)
            delta = schema.TextDeltaEvent(sequence_number=number, item_id=id_, delta=event.text, logprobs=logprobs)
            return self._framed([delta])
        self._delivered = number
        return b"%b%b%b%d}\n\n" % (self._head, json_line(event.text), self._middle, number)

    def _last_frames(self, event: Finished, number: int) -> bytes:
        if event.reason is FinishReason.CANCELLED:
            return self._error(StreamInterrupted("The response was cancelled."), number)
        return self._framed(self._ending(number))

    def _ending(self, number: int) -> Iterator[schema.StreamEvent]:
        draft, id_, part = self._draft, self._draft.message_id, self._draft.part()
        yield schema.TextDoneEvent(sequence_number=number, item_id=id_, text=part.text, logprobs=part.logprobs)
        number += 1
        yield schema.PartEvent(type="response.content_part.done", sequence_number=number, item_id=id_, part=part)
        number, item = number + 1, draft.message()
        yield schema.MessageEvent(type="response.output_item.done", sequence_number=number, item=item)
        number, response = number + 1, draft.response()
        is_whole = draft.status == "completed"
        kind = "response.completed" if is_whole else "response.incomplete"
        yield schema.ResponseEvent(type=kind, sequence_number=number, response=response)

    def _delta_borders(self) -> tuple[bytes, bytes]:
        """What stands before and behind the text of a delta without log-probabilities; the number comes last."""
        id_ = self._draft.message_id.encode()
        head = b'event: %b\ndata: {"type":"%b","output_index":0,"content_index":0,"item_id":"%b","delta":'
        return head % (_DELTA.encode(), _DELTA.encode(), id_), b',"logprobs":[],"sequence_number":'

    def _error(self, error: JobError, number: int) -> bytes:
        told = reworded(error, self._places)
        event = schema.ErrorEvent(sequence_number=number, code=told.code, message=told.message, param=told.param)
        return _frame(event)

    def _framed(self, events: Iterable[schema.StreamEvent]) -> bytes:
        return b"".join([self._new(event) for event in events])

    def _new(self, event: schema.StreamEvent) -> bytes:
        if event.sequence_number <= self._delivered:
            return b""
        self._delivered = event.sequence_number
        return _frame(event)


def _frame(event: schema.StreamEvent) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (event.type.encode(), on_one_line(event.model_dump_json().encode()))
