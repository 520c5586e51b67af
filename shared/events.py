"""What a worker may say about a job: a closed union, numbered so that nothing is lost or repeated."""

from enum import StrEnum
from typing import TypeAlias

import msgspec

from shared.errors import ErrorCode
from shared.job import JobId


class FinishReason(StrEnum):
    """Why an answer ended."""

    STOP = "stop"
    """The model ended it, or a stop string did."""
    LENGTH = "length"
    """`max_tokens` or the context's end was reached."""
    CANCELLED = "cancelled"
    """The client left; only logs and metrics ever see this."""


class Usage(msgspec.Struct, frozen=True, array_like=True):
    """Token counts of one answer."""

    prompt_tokens: int
    completion_tokens: int


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


class TextDelta(_Event, frozen=True, array_like=True, tag=True, kw_only=True):
    """Text that became safe to show, and the tokens that were generated meanwhile.

    The tokens are what another worker continues from; the text may lag behind them.
    """

    text: str
    token_ids: tuple[int, ...]


class Finished(_Event, frozen=True, array_like=True, tag=True, kw_only=True):
    """The answer is complete. Terminal."""

    reason: FinishReason
    usage: Usage


class Failed(_Event, frozen=True, array_like=True, tag=True, kw_only=True):
    """There will be no (further) answer. Terminal."""

    code: ErrorCode
    message: str
    param: str | None = None


JobEvent: TypeAlias = Started | TextDelta | Finished | Failed


def is_terminal(event: JobEvent) -> bool:
    """Whether this is the job's last event."""
    return isinstance(event, Finished | Failed)
