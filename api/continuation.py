"""Events of one request's jobs to continuations of its prompts: chunk by chunk, or folded into one answer. Pure."""

import codecs
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Self

from api.completion import DONE, ChunkStream, failure, on_one_line, usage_of
from api.identity import raw_jobs_of
from api.schema.completion import TextChoice, TextCompletion, TextLogprobs
from shared.errors import Cancelled, StreamInterrupted
from shared.events import ChoiceFinished, Failed, Finished, FinishReason, JobEvent, Started, TextDelta, Usage
from shared.job import ChatJob
from shared.progress import Candidate, TokenLogprob

_new_decoder = partial(codecs.getincrementaldecoder("utf-8"), "replace")


@dataclass(slots=True)
class _Place:
    """How far the tokens of one choice have come in its text."""

    offset: int = 0
    decoder: codecs.IncrementalDecoder = field(default_factory=_new_decoder)

    def take(self, token: bytes) -> int:
        """Return where the next token begins."""
        begin = self.offset
        self.offset += len(self.decoder.decode(token))
        return begin


class Continuations:
    """What the jobs of one request say, as pieces of its choices; prompt i's are numbered from i times n."""

    def __init__(self, completion_id: str, num_choices: int) -> None:
        """With `num_choices` answers to each prompt."""
        self._id = completion_id
        self._first = {job_id: index * num_choices for index, job_id in enumerate(raw_jobs_of(completion_id))}
        self._started: Started | None = None
        self._places: defaultdict[int, _Place] = defaultdict(_Place)
        self._usages: list[Usage] = []
        self.num_choices = num_choices * len(self._first)
        """Answers to all prompts together."""

    @classmethod
    def of(cls, jobs: Sequence[ChatJob]) -> Self:
        """Continuations of the jobs that one request became."""
        first = jobs[0]
        return cls(first.id if len(jobs) == 1 else first.id.rpartition("-")[0], first.n)

    @property
    def id(self) -> str:
        """The id of the only job, or what the ids of several begin with."""
        return self._id

    @property
    def has_ended(self) -> bool:
        """Whether every job has."""
        return len(self._usages) == len(self._first)

    @property
    def usage(self) -> Usage:
        """The counts of all jobs together."""
        return Usage.total(self._usages)

    def pieces(self, event: JobEvent) -> Iterator[TextChoice]:
        """Yield what the event adds; raises the error that a failed job stands for."""
        first = self._first[event.job_id]
        match event:
            case Started():
                self._started = event
                if event.echo:
                    yield from (TextChoice(index=first + n, text=event.echo) for n in range(event.num_choices))
            case TextDelta() if event.text or event.logprobs:
                yield self._delta(first + event.index, event)
            case ChoiceFinished():
                yield TextChoice(index=first + event.index, text="", finish_reason=event.reason)
            case Finished(reason=FinishReason.CANCELLED):
                raise Cancelled("The answer was cancelled.")
            case Finished():
                self._usages.append(event.usage)
                yield TextChoice(index=first + event.index, text="", finish_reason=event.reason)
            case Failed():
                raise failure(event)

    def completion(self, choices: list[TextChoice], usage: Usage | None = None) -> TextCompletion:
        """The answer, or a part of it, with these choices; once a job has started."""
        started = self._started
        assert started is not None
        return TextCompletion(
            id=self._id,
            created=int(started.created_s),
            model=started.model,
            system_fingerprint=started.fingerprint or None,
            choices=choices,
            usage=None if usage is None else usage_of(usage),
        )

    def _delta(self, index: int, event: TextDelta) -> TextChoice:
        logprobs = _logprobs(event.logprobs, self._places[index]) if event.logprobs else None
        return TextChoice(index=index, text=event.text, logprobs=logprobs)


class ContinuationWriter(ChunkStream):
    """Writes continuations as SSE frames, from their first events on.

    As a chat's, a frame's id says for each choice which event its client has; `delivered` is where to go on from.
    """

    def __init__(self, told: Continuations, delivered: Sequence[int] = (), *, includes_usage: bool) -> None:
        self._told = told
        self._delivered = [*delivered] or [0] * told.num_choices
        self._includes_usage = includes_usage

    def frames(self, events: Iterable[JobEvent]) -> bytes:
        """The frames of these events, ready to be sent in one piece."""
        told = self._told
        pieces = [(event.seq, piece) for event in events for piece in told.pieces(event)]
        frames = [self._next(seq, piece) for seq, piece in pieces if seq > self._delivered[piece.index]]
        if pieces and told.has_ended:
            frames += [self._frame([], told.usage)] if self._includes_usage else []
            frames.append(DONE)
        return b"".join(frames)

    def _next(self, seq: int, piece: TextChoice) -> bytes:
        self._delivered[piece.index] = seq
        return b"id: %b\n%b" % (",".join(map(str, self._delivered)).encode(), self._frame([piece]))

    def _frame(self, choices: list[TextChoice], usage: Usage | None = None) -> bytes:
        chunk = self._told.completion(choices, usage)
        content = chunk.model_dump_json(exclude=None if self._includes_usage else {"usage"})
        return b"data: %b\n\n" % on_one_line(content.encode())


async def fold_together(told: Continuations, batches: AsyncIterator[list[JobEvent]]) -> TextCompletion:
    """Return the whole answer, or raise what the stream would have ended in."""
    choices: dict[int, TextChoice] = {}
    async for events in batches:
        for event in events:
            for piece in told.pieces(event):
                before = choices.get(piece.index)
                choices[piece.index] = piece if before is None else _joined(before, piece)
    if not told.has_ended:
        raise StreamInterrupted("The answer broke off without an end.")
    return told.completion([choices[index] for index in sorted(choices)], told.usage)


def _joined(before: TextChoice, piece: TextChoice) -> TextChoice:
    logprobs = before.logprobs or piece.logprobs
    if before.logprobs is not None and piece.logprobs is not None:
        both = zip(before.logprobs, piece.logprobs, strict=True)
        logprobs = TextLogprobs(**{name: [*old, *new] for (name, old), (_, new) in both})
    reason = piece.finish_reason or before.finish_reason
    return TextChoice(index=piece.index, text=before.text + piece.text, logprobs=logprobs, finish_reason=reason)


def _logprobs(tokens: Iterable[TokenLogprob], place: _Place) -> TextLogprobs:
    told = [*tokens]
    return TextLogprobs(
        tokens=[_spelled(token.chosen) for token in told],
        token_logprobs=[token.chosen.logprob for token in told],
        top_logprobs=[{_spelled(other): other.logprob for other in (*token.top, token.chosen)} for token in told],
        text_offset=[place.take(token.chosen.token) for token in told],
    )


def _spelled(candidate: Candidate) -> str:
    try:
        return candidate.token.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in candidate.token)
