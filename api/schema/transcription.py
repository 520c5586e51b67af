"""The form of a transcription request, as OpenAI names its fields, and what it is answered with."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from api.schema.neutral import without_neutral
from api.schema.request import Schema, check_fields
from shared.errors import InvalidRequest

MAX_PROMPT_LENGTH = 4096
_TIMES = "the model tells no times: send json or text"
_FORMATS = ("json", "text")
NEUTRAL_FIELDS: Mapping[str, tuple[object, ...]] = {
    "chunking_strategy": (),
    "include": (),
    "keywords": (),
    "known_speaker_names": (),
    "known_speaker_references": (),
    "languages": (),
    "timestamp_granularities": (),
}
"""OpenAI's other fields, none of which a chat model can honour; clients send lists as `name[]`."""


def _with_file(schema: dict[str, Any]) -> None:
    schema["properties"]["file"] = {"type": "string", "format": "binary", "description": "The recording."}
    schema["required"] = ["file", *schema["required"]]


class TranscriptionRequest(Schema):
    """What is asked about a recording, which is the form's `file`; a form's values are strings."""

    model_config = ConfigDict(strict=False, json_schema_extra=_with_file)

    model: str
    prompt: str | None = Field(None, max_length=MAX_PROMPT_LENGTH)
    """Words on style and context that the model is told."""
    language: str | None = Field(None, pattern="^[A-Za-z]{2,3}(-[A-Za-z]{2,4})?$")
    """Told to the model; it finds out by itself if absent."""
    response_format: Literal["json", "text"] | None = None
    """`json` if absent; the models tell no times."""
    temperature: float | None = Field(None, ge=0, le=1)
    """0 if absent."""
    stream: bool | None = None


class InputTokenDetails(BaseModel):
    """What the input's tokens stand for."""

    audio_tokens: int
    text_tokens: int


class TranscriptionUsage(BaseModel):
    """Token counts of one transcription."""

    type: Literal["tokens"] = "tokens"
    input_tokens: int
    output_tokens: int
    total_tokens: int
    input_token_details: InputTokenDetails


class Transcription(BaseModel):
    """What was said."""

    text: str
    usage: TranscriptionUsage


class TranscriptDelta(BaseModel):
    """More of the text, in a stream."""

    type: Literal["transcript.text.delta"] = "transcript.text.delta"
    delta: str


class TranscriptDone(BaseModel):
    """The whole text, at a stream's end."""

    type: Literal["transcript.text.done"] = "transcript.text.done"
    text: str
    usage: TranscriptionUsage


def read_form(fields: Mapping[str, Any]) -> TranscriptionRequest:
    """Return what a form without its file asks, or raise InvalidRequest that names the first field that is wrong."""
    named = without_neutral({name.removesuffix("[]"): value for name, value in fields.items()}, NEUTRAL_FIELDS)
    asked = named.get("response_format")
    if asked is not None and asked not in _FORMATS:
        raise InvalidRequest(f"response_format {str(asked)[:40]} is not supported: {_TIMES}.", param="response_format")
    return check_fields(TranscriptionRequest, named)
