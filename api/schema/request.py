"""The body of a chat completion request, exactly as OpenAI names it, and how to say what is wrong with one."""

from typing import Annotated, Any, Literal, TypeAlias, TypeVar

from pydantic import BaseModel, BeforeValidator, Field, StringConstraints, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError, from_json

from api.schema.neutral import REQUEST_FIELDS, neutral_fields, without_neutral
from api.schema.sampling import MAX_INT, MAX_TOP_LOGPROBS, WRAPPED, SampledRequest
from api.schema.strict import Schema as Schema  # the bodies of other routes take it from here
from api.schema.structure import ResponseFormat, StructuredOutputs
from api.schema.tool import MAX_CALLS, MAX_ID_LENGTH, MAX_TOOLS, FunctionTool, ToolCall, ToolChoice
from shared.errors import InvalidRequest

MAX_FRAMES = 64
MAX_FPS = 240
MAX_PARAM_LENGTH = 200
MAX_MESSAGE_LENGTH = 500
"""Some of pydantic's messages repeat what was sent."""


def _as_address(value: Any) -> Any:
    return {"url": value} if isinstance(value, str) else value


def _as_parts(value: Any) -> Any:
    if isinstance(value, str):
        return [{"type": "text", "text": value}]
    if not isinstance(value, list):
        raise PydanticCustomError("content_type", "must be a string or a list of content parts")
    return value


class MediaAddress(Schema):
    """Where a picture, clip or recording is: a URL, a data: URI, bare base64 or a file the server may read."""

    url: str
    detail: Literal["auto"] | None = None


class TextContent(Schema):
    """Words."""

    type: Literal["text"]
    text: str


class ImageContent(Schema):
    """A picture, at its place among the words."""

    type: Literal["image_url"]
    image_url: Annotated[MediaAddress, BeforeValidator(_as_address, json_schema_input_type=str | MediaAddress)]


class VideoContent(Schema):
    """A clip, at its place among the words."""

    type: Literal["video_url"]
    video_url: Annotated[MediaAddress, BeforeValidator(_as_address, json_schema_input_type=str | MediaAddress)]


class AudioContent(Schema):
    """A recording, at its place among the words."""

    type: Literal["audio_url"]
    audio_url: Annotated[MediaAddress, BeforeValidator(_as_address, json_schema_input_type=str | MediaAddress)]


class InputAudio(Schema):
    """A recording as OpenAI takes it; the format is named for OpenAI's sake, as the bytes say it themselves."""

    data: str
    format: Literal["wav", "mp3", "flac", "ogg", "opus", "m4a", "aac", "mp4", "webm"]


class InputAudioContent(Schema):
    """A recording in base64, at its place among the words."""

    type: Literal["input_audio"]
    input_audio: InputAudio


Content: TypeAlias = Annotated[
    TextContent | ImageContent | VideoContent | AudioContent | InputAudioContent, Field(discriminator="type")
]


Metadata: TypeAlias = Annotated[
    dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]], Field(max_length=16)
]
"""Labels, within OpenAI's limits."""


TemplateVariable: TypeAlias = (
    bool | Annotated[int, Field(ge=-MAX_INT, le=MAX_INT)] | float | Annotated[str, Field(max_length=1024)]
)
TemplateVariables: TypeAlias = Annotated[
    dict[Annotated[str, StringConstraints(pattern=r"^[A-Za-z_]\w{0,63}$")], TemplateVariable], Field(max_length=16)
]


Contents: TypeAlias = Annotated[list[Content], BeforeValidator(_as_parts, json_schema_input_type=str | list[Content])]


class SpokenMessage(Schema):
    """One turn; content given as a string is one text part."""

    role: Literal["system", "developer", "user"]
    content: Contents


class AssistantMessage(Schema):
    """An earlier answer: its words, its calls, or both."""

    role: Literal["assistant"]
    content: Contents | None = None
    tool_calls: list[ToolCall] | None = Field(None, min_length=1, max_length=MAX_CALLS)


class ToolMessage(Schema):
    """What a call returned; it follows the answer that called."""

    role: Literal["tool"]
    content: Annotated[list[TextContent], BeforeValidator(_as_parts, json_schema_input_type=str | list[TextContent])]
    tool_call_id: str = Field(max_length=MAX_ID_LENGTH)
    name: str | None = None
    """The function's, if it is said again."""


ChatMessage: TypeAlias = Annotated[SpokenMessage | AssistantMessage | ToolMessage, Field(discriminator="role")]


class MmProcessorKwargs(Schema):
    """Wishes about how pictures and clips are prepared, by vLLM's name; each model sets its own upper limits."""

    num_frames: int | None = Field(None, ge=1, le=MAX_FRAMES)
    max_num: int | None = Field(None, ge=1, le=MAX_INT)
    max_slice_nums: int | None = Field(None, ge=1, le=MAX_INT)
    use_image_id: bool | None = None
    fps: float | None = Field(None, gt=0, le=MAX_FPS)
    max_pixels: int | None = Field(None, ge=1, le=MAX_INT)
    min_pixels: int | None = Field(None, ge=1, le=MAX_INT)


class ChatCompletionRequest(SampledRequest):
    """What a client asks for; an absent field is None and gets its default in validation."""

    messages: list[ChatMessage]
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=MAX_TOP_LOGPROBS)
    max_tokens: int | None = Field(None, ge=1, le=MAX_INT)
    max_completion_tokens: int | None = Field(None, ge=1, le=MAX_INT)
    response_format: ResponseFormat | None = None
    """JSON, or JSON of a schema, that the answer is held to."""
    guided_json: dict[str, Any] | str | None = None
    """This field and the next four are vLLM's names."""
    guided_regex: str | None = None
    """What the whole answer has to match; vLLM's name."""
    guided_choice: list[str] | None = Field(None, min_length=1)
    """Texts of which the answer is one; vLLM's name."""
    guided_grammar: str | None = None
    """A grammar in Lark or GBNF that the answer follows; vLLM's name."""
    structured_outputs: StructuredOutputs | None = None
    """The same four under vLLM's newer name."""
    images: Annotated[list[str] | None, WRAPPED] = None
    videos: Annotated[list[str] | None, WRAPPED] = None
    audios: Annotated[list[str] | None, WRAPPED] = None
    mm_processor_kwargs: MmProcessorKwargs | None = None
    chat_template_kwargs: TemplateVariables | None = None
    """Variables of the chat template, by vLLM's name, for models whose prompts are written by one."""
    tools: list[FunctionTool] | None = Field(None, max_length=MAX_TOOLS)
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    metadata: Metadata | None = None
    """Labels that stand in the request's trace, without effect on the answer."""
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    """Asks for nothing more: what prompts have in common is found without it."""


_Body = TypeVar("_Body", bound=BaseModel)


def parse(body: bytes) -> ChatCompletionRequest:
    """Read a request body, or raise InvalidRequest that names the first field that is wrong."""
    fields = without_neutral(without_best_of_all(read_fields(body)), REQUEST_FIELDS)
    if isinstance(fields.get("messages"), list):
        fields["messages"] = [_plain_message(m, i) for i, m in enumerate(fields["messages"])]
    return check_fields(ChatCompletionRequest, fields)


def read_fields(body: bytes) -> dict[str, Any]:
    """Read a body's JSON object, or raise InvalidRequest."""
    try:
        fields = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise InvalidRequest(f"The request body is not valid JSON: {error}.") from None
    if not isinstance(fields, dict):
        raise InvalidRequest("The request body must be a JSON object.")
    return fields


def check_fields(schema: type[_Body], fields: dict[str, Any]) -> _Body:
    """Return the body as its schema has it, or raise InvalidRequest that names the first field that is wrong."""
    try:
        return schema.model_validate(fields)
    except ValidationError as error:
        raise _explain(error.errors(include_url=False, include_context=False)[0], fields) from None


def without_best_of_all(fields: dict[str, Any]) -> dict[str, Any]:
    """The best n of n are all of them: `best_of` asks for nothing where it is `n`."""
    is_all = type(fields.get("best_of")) is int and fields["best_of"] == fields.get("n")
    return {name: value for name, value in fields.items() if not (is_all and name == "best_of")}


def _plain_message(message: Any, index: int) -> Any:
    if not isinstance(message, dict):
        return message
    return without_neutral(message, neutral_fields(message), f"messages[{index}].")


def _explain(error: ErrorDetails, fields: dict[str, Any]) -> InvalidRequest:
    param = _path(error["loc"], fields)
    match error["type"]:
        case "extra_forbidden":
            return InvalidRequest(f"Unknown field: {param}.", param=param)
        case "missing":
            return InvalidRequest(f"Missing field: {param}.", param=param)
        case "model_type" | "model_attributes_type":
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
