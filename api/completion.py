"""Events to answers: chunk by chunk as SSE frames, or folded into one. Pure."""

from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self, assert_never

import msgspec

from api.calls.message import delta_of, whole_message
from api.calls.reply import Addition, Replies
from api.errors import error_body
from api.schema import response as schema
from shared.errors import Cancelled, JobError, StreamInterrupted, job_error
from shared.events import ChoiceFinished, Failed, Finished, FinishReason, JobEvent, Started, TextDelta, Usage
from shared.job import ChatJob, JobId
from shared.progress import Candidate, TokenLogprob

DONE = b"data: [DONE]\n\n"

_LINE_ENDS = {
    c.encode(): escape for c, escape in (("\x85", b"\\u0085"), ("\u2028", b"\\u2028"), ("\u2029", b"\\u2029"))
}
"""JSON may hold these as they are, but some clients take them for the end of a line."""


@dataclass(slots=True)
class _Answer:
    """One choice as it adds up."""

    text: list[str] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    reason: FinishReason = FinishReason.STOP

    def choice(self, index: int, replies: Replies | None, *, has_logprobs: bool) -> schema.Choice:
        text = "".join(self.text)
        return schema.Choice(
            index=index,
            message=schema.AnswerMessage(content=text) if replies is None else whole_message(replies, index, text),
            logprobs=_logprobs(self.logprobs) if has_logprobs else None,
            finish_reason=self.reason if replies is None else replies.end_reason(index, self.reason),
        )


async def fold(job: ChatJob, batches: AsyncIterator[list[JobEvent]]) -> schema.ChatCompletion:
    """Return the whole answer, or raise what the stream would have ended in."""
    answers: defaultdict[int, _Answer] = defaultdict(_Answer)
    heading = Heading.of(job)
    async for events in batches:
        for event in events:
            match event:
                case TextDelta():
                    answers[event.index].text.append(event.text)
                    answers[event.index].logprobs += event.logprobs
                case ChoiceFinished():
                    answers[event.index].reason = event.reason
                case Finished():
                    answers[event.index].reason = event.reason
                    return _completion(job, heading, answers, event)
                case Failed():
                    raise failure(event)
                case Started():
                    heading = replace(heading, fingerprint=event.fingerprint or None)
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
    fingerprint: str | None = None
    """Unknown until the answer has started."""

    @classmethod
    def of(cls, job: ChatJob) -> Self:
        """The heading of a job's answer."""
        return cls(job.id, job.asked_model, int(job.created_s))

    @classmethod
    def said(cls, started: Started) -> Self:
        """The heading of an answer that has started, as whoever answers says it."""
        return cls(started.job_id, started.model, int(started.created_s), started.fingerprint or None)


class ChunkStream:
    """Streams of nothing but chunks: nothing comes before the first, and what breaks one is its last frame."""

    def opening(self) -> bytes:
        """Nothing comes before the first event."""
        return b""

    def broken(self, error: JobError) -> bytes:
        """The last frame of a stream that broke."""
        return error_frame(error)


class ChunkWriter(ChunkStream):
    """Writes one job's events as SSE frames, at the least cost per token.

    What doesn't change from chunk to chunk is cut out of the schema's own JSON once. A frame's id says for each
    choice which event its client has, as `12` or, with two choices, `12,9`; `delivered` is where to go on from.
    """

    def __init__(
        self,
        heading: Heading,
        delivered: Sequence[int] = (0,),
        *,
        includes_usage: bool,
        replies: Replies | None = None,
    ) -> None:
        """With `replies` there may be calls in the answer, and it has to be written from its first event on."""
        self._replies = replies
        self._delivered = [*delivered]
        self._includes_usage = includes_usage
        self._head(heading)

    def frames(self, events: Iterable[JobEvent]) -> bytes:
        """The frames of these events, ready to be sent in one piece."""
        return b"".join([self._frame(event) for event in events])

    def _frame(self, event: JobEvent) -> bytes:
        match event:
            case TextDelta():
                return self._delta(event)
            case Started():
                return self._start(event)
            case ChoiceFinished():
                return self._end(event)
            case Finished():
                return self._last_frames(event)
            case Failed():
                return error_frame(failure(event))
            case _:
                assert_never(event)

    def _delta(self, event: TextDelta) -> bytes:
        index = event.index
        if self._replies is not None:
            return self._delta_of_reply(event, self._replies.read(index, event.text))
        if event.seq <= self._delivered[index] or not (event.text or event.logprobs):
            return b""
        if event.logprobs:
            delta, logprobs = schema.Delta(content=event.text), _logprobs(event.logprobs)
            return self._framed(event.seq, schema.ChunkChoice(index=index, delta=delta, logprobs=logprobs))
        head, tail = self._borders[index]
        return b"%b%b%b%b" % (self._id(event.seq, index), head, json_line(event.text), tail)

    def _delta_of_reply(self, event: TextDelta, addition: Addition) -> bytes:
        """One chunk, however much it adds: two of one id could not be told apart by who goes on with the stream."""
        if event.seq <= self._delivered[event.index] or not (addition or event.logprobs):
            return b""
        logprobs = _logprobs(event.logprobs) if event.logprobs else None
        choice = schema.ChunkChoice(index=event.index, delta=delta_of(addition), logprobs=logprobs)
        return self._framed(event.seq, choice)

    def _start(self, event: Started) -> bytes:
        self._head(replace(self._heading, fingerprint=event.fingerprint or None))
        return b"".join([self._begin(event.seq, index) for index in range(len(self._delivered))])

    def _head(self, heading: Heading) -> None:
        self._heading = heading
        self._borders = [self._border(index) for index in range(len(self._delivered))]

    def _begin(self, seq: int, index: int) -> bytes:
        if seq <= self._delivered[index]:
            return b""
        return self._framed(seq, schema.ChunkChoice(index=index, delta=schema.Delta(role="assistant", content="")))

    def _end(self, event: ChoiceFinished | Finished) -> bytes:
        if event.seq <= self._delivered[event.index]:
            return b""
        choice = schema.ChunkChoice(index=event.index, delta=schema.Delta(), finish_reason=event.reason)
        if self._replies is not None:
            choice.delta = delta_of(self._replies.finish(event.index))
            choice.finish_reason = self._replies.end_reason(event.index, event.reason)
        return self._framed(event.seq, choice)

    def _last_frames(self, event: Finished) -> bytes:
        if event.reason is FinishReason.CANCELLED:
            return error_frame(_cancelled())
        last = self._end(event)
        if not self._includes_usage:
            return last + DONE
        return last + b"data: %b\n\n" % self._chunk(usage=usage_of(event.usage)) + DONE

    def _border(self, index: int) -> tuple[bytes, bytes]:
        """What stands around the text of a choice's chunks."""
        marked = self._chunk(schema.ChunkChoice(index=index, delta=schema.Delta(content="|")))
        head, _, tail = marked.rpartition(b'"|"')
        return b"\ndata: " + head, tail + b"\n\n"

    def _framed(self, seq: int, choice: schema.ChunkChoice) -> bytes:
        return b"%b\ndata: %b\n\n" % (self._id(seq, choice.index), on_one_line(self._chunk(choice)))

    def _id(self, seq: int, index: int) -> bytes:
        self._delivered[index] = seq
        return b"id: " + ",".join(map(str, self._delivered)).encode()

    def _chunk(self, *choices: schema.ChunkChoice, usage: schema.Usage | None = None) -> bytes:
        chunk = schema.ChatCompletionChunk(
            id=self._heading.id,
            created=self._heading.created,
            model=self._heading.model,
            system_fingerprint=self._heading.fingerprint,
            choices=[*choices],
            usage=usage,
        )
        return chunk.model_dump_json(exclude=None if self._includes_usage else {"usage"}).encode()


def _completion(
    job: ChatJob, heading: Heading, answers: defaultdict[int, _Answer], event: Finished
) -> schema.ChatCompletion:
    if event.reason is FinishReason.CANCELLED:
        raise _cancelled()
    has_logprobs = job.sampling.num_logprobs is not None
    replies = Replies.of(job.id, job.calling)
    return schema.ChatCompletion(
        id=heading.id,
        created=heading.created,
        model=heading.model,
        system_fingerprint=heading.fingerprint,
        choices=[answers[index].choice(index, replies, has_logprobs=has_logprobs) for index in range(job.n)],
        usage=usage_of(event.usage),
    )


def logprobs_of(tokens: Iterable[TokenLogprob]) -> list[schema.TokenLogprob]:
    """The tokens as OpenAI shows them."""
    return [
        schema.TokenLogprob(**_candidate(token.chosen), top_logprobs=[_top(other) for other in token.top])
        for token in tokens
    ]


def _logprobs(tokens: Iterable[TokenLogprob]) -> schema.Logprobs:
    return schema.Logprobs(content=logprobs_of(tokens))


def _top(candidate: Candidate) -> schema.TopLogprob:
    return schema.TopLogprob(**_candidate(candidate))


def _candidate(candidate: Candidate) -> dict[str, Any]:
    token = candidate.token
    return {"token": token.decode(errors="replace"), "logprob": candidate.logprob, "bytes": [*token]}


def _cancelled() -> JobError:
    return Cancelled("The answer was cancelled.")


def usage_of(usage: Usage) -> schema.Usage:
    """The counts in OpenAI's shape."""
    return schema.Usage(
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        total_tokens=usage.prompt_tokens + usage.completion_tokens,
        prompt_tokens_details=schema.PromptTokensDetails(
            audio_tokens=usage.audio_tokens, cached_tokens=usage.cached_tokens, image_tokens=usage.image_tokens
        ),
    )


def json_line(text: str) -> bytes:
    """The text as JSON that no client takes for more than one line."""
    return on_one_line(msgspec.json.encode(text))


def on_one_line(encoded: bytes) -> bytes:
    """Escape what JSON allows in a string, and some clients take for the end of a line."""
    if not encoded.isascii():
        for character, escape in _LINE_ENDS.items():
            encoded = encoded.replace(character, escape)
    return encoded
