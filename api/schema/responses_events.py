"""The events of a streamed response, in OpenAI's shape."""

from typing import Literal

from pydantic import BaseModel

from api.schema.response import TokenLogprob
from api.schema.responses_object import OutputItem, OutputText, ResponseObject


class StreamEvent(BaseModel):
    """Part of a stream: `sequence_number` only rises, and says where to go on from."""

    type: str
    sequence_number: int


class ResponseEvent(StreamEvent):
    """The response as it stands."""

    type: Literal[
        "response.created",
        "response.queued",
        "response.in_progress",
        "response.completed",
        "response.incomplete",
        "response.failed",
    ]
    response: ResponseObject


class ItemEvent(StreamEvent):
    """The answer's message or a call begins, or is there."""

    type: Literal["response.output_item.added", "response.output_item.done"]
    output_index: int
    item: OutputItem


class PartEvent(StreamEvent):
    """The message's text begins, or is there."""

    type: Literal["response.content_part.added", "response.content_part.done"]
    item_id: str
    output_index: int
    content_index: int = 0
    part: OutputText


class TextDeltaEvent(StreamEvent):
    """A piece of text."""

    type: Literal["response.output_text.delta"] = "response.output_text.delta"
    item_id: str
    output_index: int
    content_index: int = 0
    delta: str
    logprobs: list[TokenLogprob] = []


class TextDoneEvent(StreamEvent):
    """All of the text."""

    type: Literal["response.output_text.done"] = "response.output_text.done"
    item_id: str
    output_index: int
    content_index: int = 0
    text: str
    logprobs: list[TokenLogprob] = []


class ArgumentsDeltaEvent(StreamEvent):
    """A piece of a call's arguments."""

    type: Literal["response.function_call_arguments.delta"] = "response.function_call_arguments.delta"
    item_id: str
    output_index: int
    delta: str


class ArgumentsDoneEvent(StreamEvent):
    """All of a call's arguments."""

    type: Literal["response.function_call_arguments.done"] = "response.function_call_arguments.done"
    item_id: str
    output_index: int
    name: str
    arguments: str


class ErrorEvent(StreamEvent):
    """The stream breaks; what comes after its number can be asked for again."""

    type: Literal["error"] = "error"
    code: str
    message: str
    param: str | None
