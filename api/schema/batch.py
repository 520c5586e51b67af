"""Batches as OpenAI names them: the body that makes one, the lines of its files, and what is said of it."""

from typing import Annotated, Any, Literal

import msgspec
from pydantic import AfterValidator, BaseModel, Field, StringConstraints
from pydantic_core import PydanticCustomError

from api.batch.record import BatchStatus
from api.schema.file import ExpiresAfter
from api.schema.request import Schema

MAX_CUSTOM_ID = 512
MAX_MODEL = 512
MAX_METADATA = 16
"""Pairs; OpenAI's bound, as those of their lengths."""

Metadata = dict[Annotated[str, StringConstraints(max_length=64)], Annotated[str, StringConstraints(max_length=512)]]


def _naming_a_model(body: dict[str, Any]) -> dict[str, Any]:
    model = body.get("model")
    if not isinstance(model, str) or not 0 < len(model) <= MAX_MODEL:
        raise PydanticCustomError("model", "must name its model")
    return body


class CreateBatch(Schema):
    """A file of requests that are to be asked."""

    input_file_id: str
    """An uploaded file of one request a line."""
    endpoint: str
    """The path that every line asks."""
    completion_window: Literal["24h"]
    """What isn't answered by then is told as expired."""
    metadata: Annotated[Metadata | None, Field(max_length=MAX_METADATA)] = None
    output_expires_after: ExpiresAfter | None = None
    """When the files of answers go away; as all files do if absent."""


class InputLine(Schema):
    """One line of an input file."""

    custom_id: str = Field(min_length=1, max_length=MAX_CUSTOM_ID)
    method: Literal["POST"]
    url: str
    body: Annotated[dict[str, Any], AfterValidator(_naming_a_model)]


class LineResponse(msgspec.Struct, frozen=True):
    """What the endpoint would have answered over HTTP."""

    status_code: int
    request_id: str
    body: msgspec.Raw


class LineError(msgspec.Struct, frozen=True):
    """Why a line was not asked at all."""

    code: str
    message: str


class OutputLine(msgspec.Struct, frozen=True):
    """One line of an output or error file."""

    id: str
    custom_id: str
    response: LineResponse | None
    error: LineError | None


class BatchError(BaseModel):
    """Something wrong with the input file."""

    code: str
    line: int | None
    message: str
    param: str | None


class BatchErrors(BaseModel):
    """All that is wrong with it, as far as it was read."""

    object: Literal["list"] = "list"
    data: list[BatchError]


class RequestCounts(BaseModel):
    """How many lines are answered; all that were not, in the end, have failed."""

    total: int
    completed: int
    failed: int


class InputTokensDetails(BaseModel):
    """What is to be said of the prompts' tokens."""

    cached_tokens: int


class OutputTokensDetails(BaseModel):
    """What is to be said of the answers' tokens."""

    reasoning_tokens: int = 0


class BatchUsage(BaseModel):
    """Tokens of all answers so far."""

    input_tokens: int
    input_tokens_details: InputTokensDetails
    output_tokens: int
    output_tokens_details: OutputTokensDetails
    total_tokens: int


class Batch(BaseModel):
    """One batch and how far it is."""

    id: str
    object: Literal["batch"] = "batch"
    endpoint: str
    model: str | None
    errors: BatchErrors | None
    input_file_id: str
    completion_window: Literal["24h"] = "24h"
    status: BatchStatus
    output_file_id: str | None
    error_file_id: str | None
    created_at: int
    in_progress_at: int | None
    expires_at: int
    finalizing_at: int | None
    completed_at: int | None
    failed_at: int | None
    expired_at: int | None
    cancelling_at: int | None
    cancelled_at: int | None
    request_counts: RequestCounts
    usage: BatchUsage
    metadata: dict[str, str] | None


class BatchList(BaseModel):
    """A page of batches, newest first."""

    object: Literal["list"] = "list"
    data: list[Batch]
    first_id: str | None
    last_id: str | None
    has_more: bool
