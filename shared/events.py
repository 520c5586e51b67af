"""What a worker may say about a job: a closed union, numbered so that nothing is lost or repeated."""

from collections.abc import Iterable
from enum import StrEnum
from typing import Self, TypeAlias

import msgspec

from shared.errors import ErrorCode
from shared.job import JobId
from shared.progress import TokenLogprob
from shared.tools import Calling


class FinishReason(StrEnum):
    """Why an answer ended."""

    STOP = "stop"
    """The model ended it, or a stop string did."""
    LENGTH = "length"
    """`max_tokens` or the context's end was reached."""
    CANCELLED = "cancelled"
    """The client left; only logs and metrics ever see this."""


class Usage(msgspec.Struct, frozen=True, array_like=True):
    """Token counts of one job: the prompt once, and all of its choices."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    """Of the prompt's, what a worker still held and didn't read again."""
    audio_tokens: int = 0
    """Of the prompt's, what stands for recordings."""
    image_tokens: int = 0
    """Of the prompt's, what stands for pictures and clips."""

    @classmethod
    def total(cls, usages: Iterable[Self]) -> Self:
        """Return the counts of several jobs together."""
        return cls(*map(sum, zip(*map(msgspec.structs.astuple, usages), strict=True)))


class _Event(msgspec.Struct, frozen=True, array_like=True, tag=True, kw_only=True):
    job_id: JobId
    attempt: int
    """Which claim of the job said it; a later attempt continues an earlier one."""
    seq: int
    """1, 2, 3 … per job, over all its attempts."""


class Started(_Event, frozen=True, array_like=True, tag=True, kw_only=True):
    """The first token is there: nothing the client sent can be refused any more."""

    prompt_tokens: int
    model: str
    """The id the client asked for; with the time, what a resumed stream repeats in each chunk."""
    created_s: float
    num_choices: int = 1
    fingerprint: str = ""
    """What the answers of the worker that said it depend on, beside the request; empty if it doesn't know."""
    calling: Calling | None = None
    """How calls are read from the text, as the job has it."""
    echo: str = ""
    """The prompt, where every choice is to begin with it."""


class TextDelta(_Event, frozen=True, array_like=True, tag=True, kw_only=True):
    """Text of one choice that became safe to show, and the tokens that were generated meanwhile.

    The tokens are what another worker continues from; the text may lag behind them.
    """

    text: str
    token_ids: tuple[int, ...]
    index: int = 0
    """Which choice."""
    logprobs: tuple[TokenLogprob, ...] = ()
    """Of the tokens whose text became safe to show, if the client asked for them."""
    held: tuple[TokenLogprob, ...] = ()
    """Of those of its tokens whose text waits: what another worker shows with it. As many as
    `logprobs` has are told of those that waited before, in order."""


class ChoiceFinished(_Event, frozen=True, array_like=True, tag=True, kw_only=True):
    """One choice is complete and others are not; the last one's end is told by `Finished`."""

    index: int
    reason: FinishReason


class Finished(_Event, frozen=True, array_like=True, tag=True, kw_only=True):
    """The last choice is complete, and so is the answer. Terminal."""

    reason: FinishReason
    usage: Usage
    index: int = 0
    key_name: str = ""
    """Whose answer it was, as the job has it."""


class Failed(_Event, frozen=True, array_like=True, tag=True, kw_only=True):
    """There will be no (further) answer. Terminal."""

    code: ErrorCode
    message: str
    param: str | None = None
    key_name: str = ""
    """Whose answer it would have been, as the job has it."""


JobEvent: TypeAlias = Started | TextDelta | ChoiceFinished | Finished | Failed


def is_terminal(event: JobEvent) -> bool:
    """Whether this is the job's last event."""
    return isinstance(event, Finished | Failed)
