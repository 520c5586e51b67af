"""Events of one request's jobs to continuations of its prompts: chunk by chunk, or folded into one answer. Pure."""

import codecs
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import msgspec

from api.completion import DONE, ChunkStream, failure, on_one_line, usage_of
from api.schema.completion import TextChoice, TextCompletion, TextLogprobs
from shared.errors import StreamInterrupted
from shared.events import ChoiceFinished, Failed, Finished, JobEvent, Started, TextDelta, Usage
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

    def __init__(self, id: str, jobs: Sequence[ChatJob], *, echoes: bool) -> None:  # noqa: A002  the field's name
        self.id = id
        self._jobs = {job.id: (index * job.n, job) for index, job in enumerate(jobs)}
        self._created, self._model = int(jobs[0].created_s), jobs[0].asked_model
        self._echoes = echoes
        self._fingerprint: str | None = None
        self._places: defaultdict[int, _Place] = defaultdict(_Place)
        self._usages: list[Usage] = []

    @property
    def has_ended(self) -> bool:
        """Whether every job has."""
        return len(self._usages) == len(self._jobs)

    @property
    def usage(self) -> Usage:
        """The counts of all jobs together."""
        return Usage(*map(sum, zip(*map(msgspec.structs.astuple, self._usages), strict=True)))

    def pieces(self, event: JobEvent) -> Iterator[TextChoice]:
        """Yield what the event adds; raises the error that a failed job stands for."""
        first, job = self._jobs[event.job_id]
        match event:
            case Started():
                self._fingerprint = event.fingerprint or None
                yield from self._echo(first, job)
            case TextDelta() if event.text or event.logprobs:
                yield self._delta(first + event.index, event)
            case ChoiceFinished():
                yield TextChoice(index=first + event.index, text="", finish_reason=event.reason)
            case Finished():
                self._usages.append(event.usage)
                yield TextChoice(index=first + event.index, text="", finish_reason=event.reason)
            case Failed():
                raise failure(event)

    def completion(self, choices: list[TextChoice], usage: Usage | None = None) -> TextCompletion:
        """The answer, or a part of it, with these choices."""
        return TextCompletion(
            id=self.id,
            created=self._created,
            model=self._model,
            system_fingerprint=self._fingerprint,
            choices=choices,
            usage=None if usage is None else usage_of(usage),
        )

    def _echo(self, first: int, job: ChatJob) -> Iterator[TextChoice]:
        if self._echoes and isinstance(job.prompt, str):
            for index in range(first, first + job.n):
                yield TextChoice(index=index, text=job.prompt)

    def _delta(self, index: int, event: TextDelta) -> TextChoice:
        has_logprobs = self._jobs[event.job_id][1].sampling.num_logprobs is not None
        logprobs = _logprobs(event.logprobs, self._places[index]) if has_logprobs else None
        return TextChoice(index=index, text=event.text, logprobs=logprobs)


class ContinuationWriter(ChunkStream):
    """Writes continuations as SSE frames."""

    def __init__(self, continuations: Continuations, *, includes_usage: bool) -> None:
        self._continuations = continuations
        self._includes_usage = includes_usage

    def frames(self, events: Iterable[JobEvent]) -> bytes:
        """The frames of these events, ready to be sent in one piece."""
        told = self._continuations
        frames = [self._frame([piece]) for event in events for piece in told.pieces(event)]
        if frames and told.has_ended:
            frames += [self._frame([], told.usage)] if self._includes_usage else []
            frames.append(DONE)
        return b"".join(frames)

    def _frame(self, choices: list[TextChoice], usage: Usage | None = None) -> bytes:
        chunk = self._continuations.completion(choices, usage)
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
