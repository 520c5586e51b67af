"""Events to OpenAI's response events, as SSE frames. Pure.

Without calls, sequence numbers are those of the job's log, moved up by the events that come before the first one. A
slow client's deltas may be joined under the number of the last one: numbers only rise, and what follows any of them
is what its client has not got yet. Where there may be calls, an event of the log may say many things or none, so
that they are counted; then no delta may be joined. Either way every gateway numbers alike.
"""

from collections.abc import Iterable, Iterator
from typing import assert_never

from api.completion import json_line, logprobs_of, on_one_line
from api.responses.draft import Draft
from api.responses.output import Added, Begun, Change, Entry, Words, shown
from api.responses.wording import reworded
from api.schema import responses_events as schema
from api.schema.responses_object import FunctionCallItem, OutputMessage, OutputText
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
        self._output = self._draft.output
        self._places = kept.places
        self._delivered = -1 if starting_after is None else starting_after
        self._is_background = self._draft.heading.background
        self._number = 0
        """Of the next event."""
        self._borders = (b"", b"")

    def opening(self) -> bytes:
        """The frames that come before any event of the job."""
        self._number = 0
        second = "response.queued" if self._is_background else "response.in_progress"
        return self._framed([self._response("response.created"), self._response(second)])

    def frames(self, events: Iterable[JobEvent]) -> bytes:
        """The frames of these events, ready to be sent in one piece."""
        return b"".join([self._frame(event) for event in events])

    def broken(self, error: JobError) -> bytes:
        """The last frame of a stream that broke; its number is the last one that was sent."""
        return self._error(error, max(self._delivered, 0))

    def _frame(self, event: JobEvent) -> bytes:
        changes = self._draft.add(event)
        self._set_number(event)
        match event:
            case TextDelta() if not self._output.may_call and not event.logprobs:
                return self._plain_delta(event)
            case TextDelta():
                return self._changed(changes)
            case Started():
                return self._started(changes)
            case Finished(reason=FinishReason.CANCELLED):
                return self._error(StreamInterrupted("The response was cancelled."), self._number)
            case Finished():
                return self._changed(changes) + self._framed(self._ending())
            case Failed():
                return self._framed([self._response("response.failed")])
            case ChoiceFinished():
                return b""
            case _:
                assert_never(event)

    def _set_number(self, event: JobEvent) -> None:
        if not isinstance(event, Started) and not self._output.may_call:
            self._number = event.seq + 2 + self._is_background
        elif isinstance(event, Started):
            self._number = 2

    def _started(self, changes: list[Change]) -> bytes:
        if not self._output.may_call:
            self._borders = self._delta_borders()
        return (self._running() if self._is_background else b"") + self._changed(changes)

    def _running(self) -> bytes:
        running = self._draft.heading.model_copy(update={"status": "in_progress"})
        kind = "response.in_progress"
        return self._framed([schema.ResponseEvent(type=kind, sequence_number=self._next(), response=running)])

    def _plain_delta(self, event: TextDelta) -> bytes:
        """The one event that comes again and again: what doesn't change in it was made at the start."""
        if self._number <= self._delivered or not event.text:
            return b""
        self._delivered = self._number
        return b"%b%b%b%d}\n\n" % (self._borders[0], json_line(event.text), self._borders[1], self._number)

    def _changed(self, changes: Iterable[Change]) -> bytes:
        return b"".join([self._framed(self._told(change)) for change in changes])

    def _told(self, change: Change) -> Iterator[schema.StreamEvent]:
        entry = change.entry
        named = {"item_id": entry.id, "output_index": entry.index}
        match change:
            case Begun():
                yield self._item(entry, "response.output_item.added")
                if isinstance(entry, Words):
                    kind = "response.content_part.added"
                    yield schema.PartEvent(type=kind, sequence_number=self._next(), part=OutputText(), **named)
            case Added() if isinstance(entry, Words):
                if change.text or change.logprobs:
                    told = {"delta": change.text, "logprobs": logprobs_of(change.logprobs)}
                    yield schema.TextDeltaEvent(sequence_number=self._next(), **told, **named)
            case Added():
                yield schema.ArgumentsDeltaEvent(sequence_number=self._next(), delta=change.text, **named)

    def _item(self, entry: Entry, kind: str) -> schema.ItemEvent:
        if kind.endswith("done"):
            item = shown(entry, self._draft.item_status, is_whole=True)
        elif isinstance(entry, Words):
            item = OutputMessage(id=entry.id)
        else:
            item = FunctionCallItem(id=entry.id, call_id=entry.call_id, name=entry.name)
        return schema.ItemEvent(type=kind, sequence_number=self._next(), output_index=entry.index, item=item)

    def _ending(self) -> Iterator[schema.StreamEvent]:
        for entry in self._output.entries:
            yield self._whole(entry)
            named = {"item_id": entry.id, "output_index": entry.index}
            if isinstance(entry, Words):
                kind, part = "response.content_part.done", entry.part(is_whole=True)
                yield schema.PartEvent(type=kind, sequence_number=self._next(), part=part, **named)
            yield self._item(entry, "response.output_item.done")
        yield self._response(f"response.{self._draft.status}")

    def _whole(self, entry: Entry) -> schema.StreamEvent:
        named = {"item_id": entry.id, "output_index": entry.index, "sequence_number": self._next()}
        if isinstance(entry, Words):
            part = entry.part(is_whole=True)
            return schema.TextDoneEvent(text=part.text, logprobs=part.logprobs, **named)
        return schema.ArgumentsDoneEvent(name=entry.name, arguments="".join(entry.arguments), **named)

    def _response(self, kind: str) -> schema.ResponseEvent:
        return schema.ResponseEvent(type=kind, sequence_number=self._next(), response=self._draft.response())

    def _delta_borders(self) -> tuple[bytes, bytes]:
        """What stands before and behind the text of a delta without log-probabilities; the number comes last."""
        id_ = self._output.entries[0].id.encode()
        head = b'event: %b\ndata: {"type":"%b","output_index":0,"content_index":0,"item_id":"%b","delta":'
        return head % (_DELTA.encode(), _DELTA.encode(), id_), b',"logprobs":[],"sequence_number":'

    def _error(self, error: JobError, number: int) -> bytes:
        told = reworded(error, self._places)
        event = schema.ErrorEvent(sequence_number=number, code=told.code, message=told.message, param=told.param)
        return _frame(event)

    def _next(self) -> int:
        self._number += 1
        return self._number - 1

    def _framed(self, events: Iterable[schema.StreamEvent]) -> bytes:
        return b"".join([self._new(event) for event in events])

    def _new(self, event: schema.StreamEvent) -> bytes:
        if event.sequence_number <= self._delivered:
            return b""
        self._delivered = event.sequence_number
        return _frame(event)


def _frame(event: schema.StreamEvent) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (event.type.encode(), on_one_line(event.model_dump_json().encode()))
