"""The bodies this server sends, in OpenAI's shape."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from shared.events import FinishReason


def _is_none(value: object) -> bool:
    return value is None


class PromptTokensDetails(BaseModel):
    """What is to be said of the prompt's tokens."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    audio_tokens: int
    """Those that stand for recordings."""
    cached_tokens: int
    """Those that a worker still held and didn't read again."""
    image_tokens: int
    """Those that stand for pictures, and for clips, which OpenAI has no field for."""


class CompletionTokensDetails(BaseModel):
    """What is to be said of the answers' tokens: all of them are what the client sees."""

    accepted_prediction_tokens: int = 0
    audio_tokens: int = 0
    reasoning_tokens: int = 0
    rejected_prediction_tokens: int = 0


class Usage(BaseModel):
    """Token counts of one request: its prompt, and all of its choices."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails
    completion_tokens_details: CompletionTokensDetails = CompletionTokensDetails()


class CalledFunction(BaseModel):
    """What is called, and with what: JSON as the model said it."""

    name: str
    arguments: str


class AnswerCall(BaseModel):
    """One call of a tool."""

    id: str
    type: Literal["function"] = "function"
    function: CalledFunction


class AnswerMessage(BaseModel):
    """The whole answer; content is null where it is calls only."""

    role: Literal["assistant"] = "assistant"
    content: str | None
    tool_calls: list[AnswerCall] | None = Field(None, exclude_if=_is_none)
    refusal: None = None
    annotations: list[str] = Field([], max_length=0)


class TopLogprob(BaseModel):
    """A token that might have stood there; half a character is U+FFFD, its bytes are its own."""

    token: str
    logprob: float
    bytes: list[int]


class TokenLogprob(TopLogprob):
    """One token of the answer."""

    top_logprobs: list[TopLogprob]


class Logprobs(BaseModel):
    """The tokens of an answer, or of a chunk of it."""

    content: list[TokenLogprob]
    refusal: None = None


class Choice(BaseModel):
    """One answer of a plain response."""

    index: int
    message: AnswerMessage
    logprobs: Logprobs | None = None
    finish_reason: FinishReason | Literal["tool_calls"]


class ChatCompletion(BaseModel):
    """A plain response."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    service_tier: Literal["default"] = "default"
    system_fingerprint: str | None = None
    """What the answer depends on beside the request."""
    choices: list[Choice]
    usage: Usage


class FunctionPart(BaseModel):
    """The name where a call begins, and the next part of its arguments."""

    name: str | None = Field(None, exclude_if=_is_none)
    arguments: str


class CallDelta(BaseModel):
    """What a chunk adds to one call; id and type stand where it begins."""

    index: int
    id: str | None = Field(None, exclude_if=_is_none)
    type: Literal["function"] | None = Field(None, exclude_if=_is_none)
    function: FunctionPart


class Delta(BaseModel):
    """What a chunk adds; the role stands in the first chunk only."""

    role: Literal["assistant"] | None = Field(None, exclude_if=_is_none)
    content: str | None = Field(None, exclude_if=_is_none)
    tool_calls: list[CallDelta] | None = Field(None, exclude_if=_is_none)


class ChunkChoice(BaseModel):
    """One answer's part of a chunk."""

    index: int
    delta: Delta
    logprobs: Logprobs | None = None
    finish_reason: FinishReason | Literal["tool_calls"] | None = None


class ChatCompletionChunk(BaseModel):
    """One frame of a streamed response."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    service_tier: Literal["default"] = "default"
    system_fingerprint: str | None = None
    """What the answer depends on beside the request."""
    choices: list[ChunkChoice]
    usage: Usage | None = None


class ErrorDetail(BaseModel):
    """What went wrong, and with which field."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorBody(BaseModel):
    """Every response that isn't an answer, and the last frame of a stream that broke."""

    error: ErrorDetail


class ModelCard(BaseModel):
    """One model that can be asked now."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "baton"
    is_chat: bool = True
    is_multimodal: bool
    parent: str | None = Field(None, exclude_if=_is_none)
    """The base model of an adapter."""


class Cancellation(BaseModel):
    """An answer that has ended; asking for its end again changes nothing."""

    id: str
    object: Literal["chat.completion", "text_completion"]
    cancelled: bool
    """False if it was complete, or had failed, before anybody cancelled it."""


class ServerVersion(BaseModel):
    """The release that serves."""

    version: str


class ModelDeleted(BaseModel):
    """An adapter that is served no longer."""

    id: str
    object: Literal["model"] = "model"
    deleted: Literal[True] = True


class ModelList(BaseModel):
    """The models that can be asked now."""

    object: Literal["list"] = "list"
    data: list[ModelCard]
