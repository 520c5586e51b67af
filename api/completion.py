"""Events to answers: chunk by chunk as SSE frames, or folded into one. Pure."""

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from typing import Self, assert_never

import msgspec

from api.errors import error_body
from api.schema import response as schema
from shared.errors import JobError, StreamInterrupted, job_error
from shared.events import Failed, Finished, FinishReason, JobEvent, Started, TextDelta, Usage
from shared.job import ChatJob, JobId

DONE = b"data: [DONE]\n\n"

_LINE_ENDS = {
    c.encode(): escape for c, escape in (("\x85", b"\\u0085"), ("\u2028", b"\\u2028"), ("\u2029", b"\\u2029"))
}
"""JSON may hold these as they are, but some clients take them for the end of a line."""


async def fold(job: ChatJob, batches: AsyncIterator[list[JobEvent]]) -> schema.ChatCompletion:
    """Return the whole answer, or raise what the stream would have ended in."""
    text: list[str] = []
    async for events in batches:
        for event in events:
            match event:
                case TextDelta():
                    text.append(event.text)
                case Finished():
                    return _completion(job, "".join(text), event)
                case Failed():
                    raise failure(event)
                case Started():
                    pass
                case _:
                    assert_never(event)
    raise StreamInterrupted("The answer broke off without an end.")


def failure(event: Failed) -> JobError:
    """The error that a failed job stands for."""
    return job_error(event.code, event.message, event.param)


def error_frame(error: JobError) -> bytes:
    """The last frame of a stream that broke; no `[DONE]` follows."""
    return b"data: %b\n\n" % error_body(error)


@dataclass(frozen=True, slots=True)
class Heading:
    """What every chunk of one answer repeats."""

    id: JobId
    model: str
    created: int

    @classmethod
    def of(cls, job: ChatJob) -> Self:
        """The heading of a job's answer."""
        return cls(job.id, job.asked_model, int(job.created_s))


class ChunkWriter:
    """Writes one job's events as SSE frames, at the least cost per token.

    What doesn't change from chunk to chunk is cut out of the schema's own JSON once.
    """

    def __init__(self, heading: Heading, *, includes_usage: bool) -> None:
        self._heading = heading
        self._includes_usage = includes_usage
        marked = self._chunk(schema.ChunkChoice(delta=schema.Delta(content="|")))
        head, _, tail = marked.rpartition(b'"|"')
        self._head, self._tail = b"\ndata: " + head, tail + b"\n\n"

    def frames(self, events: Iterable[JobEvent]) -> bytes:
        """The frames of these events, ready to be sent in one piece."""
        return b"".join([self._frame(event) for event in events])

    def _frame(self, event: JobEvent) -> bytes:
        match event:
            case TextDelta():
                return b"id: %d%b%b%b" % (event.seq, self._head, _json(event.text), self._tail) if event.text else b""
            case Started():
                return self._framed(event.seq, schema.ChunkChoice(delta=schema.Delta(role="assistant", content="")))
            case Finished():
                return self._last_frames(event)
            case Failed():
                return error_frame(failure(event))
            case _:
                assert_never(event)

    def _last_frames(self, event: Finished) -> bytes:
        if event.reason is FinishReason.CANCELLED:
            return error_frame(_cancelled())
        last = self._framed(event.seq, schema.ChunkChoice(delta=schema.Delta(), finish_reason=event.reason))
        if not self._includes_usage:
            return last + DONE
        return last + b"data: %b\n\n" % self._chunk(usage=_usage(event.usage)) + DONE

    def _framed(self, seq: int, choice: schema.ChunkChoice) -> bytes:
        return b"id: %d\ndata: %b\n\n" % (seq, self._chunk(choice))

    def _chunk(self, *choices: schema.ChunkChoice, usage: schema.Usage | None = None) -> bytes:
        chunk = schema.ChatCompletionChunk(
            id=self._heading.id,
            created=self._heading.created,
            model=self._heading.model,
            choices=[*choices],
            usage=usage,
        )
        return chunk.model_dump_json(exclude=None if self._includes_usage else {"usage"}).encode()


def _completion(job: ChatJob, text: str, event: Finished) -> schema.ChatCompletion:
    if event.reason is FinishReason.CANCELLED:
        raise _cancelled()
    return schema.ChatCompletion(
        id=job.id,
        created=int(job.created_s),
        model=job.asked_model,
        choices=[schema.Choice(message=schema.AnswerMessage(content=text), finish_reason=event.reason)],
        usage=_usage(event.usage),
    )


def _cancelled() -> JobError:
    return StreamInterrupted("The answer was cancelled.")


def _usage(usage: Usage) -> schema.Usage:
    return schema.Usage(
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        total_tokens=usage.prompt_tokens + usage.completion_tokens,
    )


def _json(text: str) -> bytes:
    encoded = msgspec.json.encode(text)
    if not encoded.isascii():
        for character, escape in _LINE_ENDS.items():
            encoded = encoded.replace(character, escape)
    return encoded
