"""The body of a chat completion request, exactly as OpenAI names it, and how to say what is wrong with one."""

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError, from_json

from api.schema.neutral import MESSAGE_FIELDS, REQUEST_FIELDS, without_neutral
from shared.errors import InvalidRequest

MAX_INT = 2**31 - 1
MAX_SEED = 2**63 - 1
MAX_FRAMES = 64
MAX_STOP_STRINGS = 16
MAX_STOP_LENGTH = 256
MAX_PARAM_LENGTH = 200
MAX_MESSAGE_LENGTH = 500
"""Some of pydantic's messages repeat what was sent."""


class _Schema(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


def _wrapped(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _as_address(value: Any) -> Any:
    return {"url": value} if isinstance(value, str) else value


def _as_parts(value: Any) -> Any:
    if isinstance(value, str):
        return [{"type": "text", "text": value}]
    if not isinstance(value, list):
        raise PydanticCustomError("content_type", "must be a string or a list of content parts")
    return value


class MediaAddress(_Schema):
    """Where a picture or clip is: a URL, a data: URI or bare base64."""

    url: str
    detail: Literal["auto"] | None = None


class TextContent(_Schema):
    """Words."""

    type: Literal["text"]
    text: str


class ImageContent(_Schema):
    """A picture, at its place among the words."""

    type: Literal["image_url"]
    image_url: Annotated[MediaAddress, BeforeValidator(_as_address)]


class VideoContent(_Schema):
    """A clip, at its place among the words."""

    type: Literal["video_url"]
    video_url: Annotated[MediaAddress, BeforeValidator(_as_address)]


Content: TypeAlias = Annotated[TextContent | ImageContent | VideoContent, Field(discriminator="type")]
StopString: TypeAlias = Annotated[str, Field(min_length=1, max_length=MAX_STOP_LENGTH)]


class ChatMessage(_Schema):
    """One turn; content given as a string is one text part."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[list[Content], BeforeValidator(_as_parts)]


class MmProcessorKwargs(_Schema):
    """Wishes about how pictures and clips are prepared, by vLLM's name; each model sets its own upper limits."""

    num_frames: int | None = Field(None, ge=1, le=MAX_FRAMES)
    max_num: int | None = Field(None, ge=1, le=MAX_INT)
    max_slice_nums: int | None = Field(None, ge=1, le=MAX_INT)
    use_image_id: bool | None = None


class StreamOptions(_Schema):
    """What a stream carries beside the text."""

    include_usage: bool = False
    include_obfuscation: Literal[False] = False


class ChatCompletionRequest(_Schema):
    """What a client asks for; an absent field is None and gets its default in validation."""

    model: str
    messages: list[ChatMessage]
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=-1, le=MAX_INT)
    seed: int | None = Field(None, ge=-MAX_SEED - 1, le=MAX_SEED)
    stop: Annotated[list[StopString] | None, BeforeValidator(_wrapped)] = Field(None, max_length=MAX_STOP_STRINGS)
    max_tokens: int | None = Field(None, ge=1, le=MAX_INT)
    max_completion_tokens: int | None = Field(None, ge=1, le=MAX_INT)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    images: Annotated[list[str] | None, BeforeValidator(_wrapped)] = None
    videos: Annotated[list[str] | None, BeforeValidator(_wrapped)] = None
    mm_processor_kwargs: MmProcessorKwargs | None = None
    user: str | None = None
    """Names the caller's own customer; OpenAI gives this field and the next two no effect on the answer."""
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None


def parse(body: bytes) -> ChatCompletionRequest:
    """Read a request body, or raise InvalidRequest that names the first field that is wrong."""
    try:
        fields = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise InvalidRequest(f"The request body is not valid JSON: {error}.") from None
    if not isinstance(fields, dict):
        raise InvalidRequest("The request body must be a JSON object.")
    fields = without_neutral(fields, REQUEST_FIELDS)
    if isinstance(fields.get("messages"), list):
        fields["messages"] = [_plain_message(m, i) for i, m in enumerate(fields["messages"])]
    try:
        return ChatCompletionRequest.model_validate(fields)
    except ValidationError as error:
        raise _explain(error.errors(include_url=False, include_context=False)[0], fields) from None


def _plain_message(message: Any, index: int) -> Any:
    return without_neutral(message, MESSAGE_FIELDS, f"messages[{index}].") if isinstance(message, dict) else message


def _explain(error: ErrorDetails, fields: dict[str, Any]) -> InvalidRequest:
    param = _path(error["loc"], fields)
    match error["type"]:
        case "extra_forbidden":
            return InvalidRequest(f"Unknown field: {param}.", param=param)
        case "missing":
            return InvalidRequest(f"Missing field: {param}.", param=param)
        case "model_type":
            return InvalidRequest(f"Invalid {param}: must be an object.", param=param)
        case _:
            return InvalidRequest(f"Invalid {param}: {error['msg'][:MAX_MESSAGE_LENGTH]}.", param=param)


def _path(loc: tuple[int | str, ...], fields: Any) -> str:
    """`("messages", 0, "content", 1, "text", "text")` → `messages[0].content[1].text`: union tags are no field."""
    path, here = "", fields
    for position, step in enumerate(loc):
        if isinstance(here, list) and isinstance(step, int) and step < len(here):
            path, here = f"{path}[{step}]", here[step]
        elif isinstance(here, dict) and (step in here or position == len(loc) - 1):
            path, here = f"{path}.{step}", here.get(step)
    return path.removeprefix(".")[:MAX_PARAM_LENGTH]
