"""The body of a request for a response, exactly as OpenAI names it."""

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, StringConstraints, Tag
from pydantic_core import PydanticCustomError

from api.schema.neutral import without_neutral
from api.schema.request import (
    MAX_INT,
    MAX_PRIORITY,
    MAX_SEED,
    MAX_TOP_LOGPROBS,
    InputAudio,
    MmProcessorKwargs,
    Schema,
    check_fields,
    read_fields,
)
from api.schema.structure import JsonObjectFormat, JsonSchema, TextFormat

MAX_METADATA = 16
LOGPROBS = "message.output_text.logprobs"

NEUTRAL_FIELDS = {
    "access_programs": (),
    "background_options": ({}, {"completion_window": "soonest"}),
    "context_management": ([],),
    "conversation": (),
    "image": ({}, {"context_compression": "disabled"}),
    "max_tool_calls": (),
    "moderation": (),
    "prompt": (),
    "prompt_cache_options": ({}, {"mode": "implicit"}),
    "prompt_cache_retention": ("in_memory",),
    "reasoning": ({}, {"effort": None}, {"effort": "none"}),
    "service_tier": ("auto", "default"),
    "tool_choice": ("auto", "none"),
    "tools": ([],),
    "truncation": ("disabled",),
}
"""Field → the values that ask for nothing; null always does."""

MESSAGE_FIELDS = {"phase": ()}
"""The same for one message of the input."""


def _known_type(value: Any) -> Any:
    if isinstance(value, dict) and value.get("type") not in {None, "message"}:
        raise PydanticCustomError("item_type", "only messages are accepted here")
    return value


def _as_parts(value: Any) -> Any:
    if isinstance(value, str):
        return [{"type": "input_text", "text": value}]
    if not isinstance(value, list):
        raise PydanticCustomError("content_type", "must be a string or a list of content parts")
    return value


def _form(value: Any) -> str:
    """Which of the two forms is meant, so that only what is wrong with that one is told."""
    return "text" if isinstance(value, str) else "messages"


def _filled(value: list["InputMessage"] | str) -> list["InputMessage"] | str:
    if not value:
        raise PydanticCustomError("empty", "must not be empty")
    return value


class InputText(Schema):
    """Words."""

    type: Literal["input_text"]
    text: str


class EarlierText(Schema):
    """Words of an earlier answer, as they were received."""

    type: Literal["output_text"]
    text: str
    annotations: list[Any] = Field([], max_length=0)
    logprobs: list[Any] | None = None
    """An answer may be sent back as it came; what was said of its tokens is of no use then."""


class InputImage(Schema):
    """A picture, at its place among the words."""

    type: Literal["input_image"]
    image_url: str
    detail: Literal["auto"] | None = None
    file_id: None = None


class InputVideo(Schema):
    """A clip, at its place among the words; OpenAI has no such part."""

    type: Literal["input_video"]
    video_url: str


class InputRecording(Schema):
    """A recording in base64, at its place among the words."""

    type: Literal["input_audio"]
    input_audio: InputAudio


InputPart: TypeAlias = Annotated[
    InputText | EarlierText | InputImage | InputVideo | InputRecording, Field(discriminator="type")
]


class InputMessage(Schema):
    """One turn; an answer of ours may be sent back as it came."""

    type: Literal["message"] | None = None
    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[list[InputPart], BeforeValidator(_as_parts, json_schema_input_type=str | list[InputPart])]
    id: str | None = None
    status: Literal["in_progress", "completed", "incomplete"] | None = None


InputItem: TypeAlias = Annotated[InputMessage, BeforeValidator(_known_type, json_schema_input_type=InputMessage)]


class NamedSchemaFormat(JsonSchema):
    """JSON that matches a schema; here OpenAI has its name and the schema beside the type."""

    type: Literal["json_schema"]


TextForm: TypeAlias = Annotated[TextFormat | JsonObjectFormat | NamedSchemaFormat, Field(discriminator="type")]


class TextOptions(Schema):
    """What is wished of the answer's text."""

    format: TextForm | None = None
    verbosity: Literal["medium"] | None = None


class ResponseStreamOptions(Schema):
    """How the stream is sent."""

    include_obfuscation: Literal[False] | None = None


MetadataKey: TypeAlias = Annotated[str, StringConstraints(max_length=64)]
MetadataValue: TypeAlias = Annotated[str, StringConstraints(max_length=512)]


class CreateResponse(Schema):
    """What a client asks for; an absent field is None and gets its default in validation."""

    model: str
    input: Annotated[
        Annotated[str, Tag("text")] | Annotated[list[InputItem], Tag("messages")],
        Discriminator(_form),
        AfterValidator(_filled),
    ]
    instructions: str | None = None
    previous_response_id: str | None = None
    background: bool | None = None
    store: bool | None = None
    stream: bool | None = None
    stream_options: ResponseStreamOptions | None = None
    max_output_tokens: int | None = Field(None, ge=1, le=MAX_INT)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    top_logprobs: int | None = Field(None, ge=0, le=MAX_TOP_LOGPROBS)
    include: list[Literal["message.output_text.logprobs", "reasoning.encrypted_content"]] | None = None
    """There is no reasoning here to be encrypted; agents ask for it of every model."""
    text: TextOptions | None = None
    parallel_tool_calls: bool | None = None
    metadata: dict[MetadataKey, MetadataValue] | None = Field(None, max_length=MAX_METADATA)
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    top_k: int | None = Field(None, ge=-1, le=MAX_INT)
    min_p: float | None = Field(None, ge=0, le=1)
    repetition_penalty: float | None = Field(None, gt=0, le=10)
    seed: int | None = Field(None, ge=-MAX_SEED - 1, le=MAX_SEED)
    timeout: float | None = Field(None, gt=0)
    priority: int | None = Field(None, ge=-MAX_PRIORITY, le=MAX_PRIORITY)
    mm_processor_kwargs: MmProcessorKwargs | None = None

    @property
    def is_kept(self) -> bool:
        """Whether it can be read again later."""
        return self.store is not False

    @property
    def wants_logprobs(self) -> bool:
        """Whether the answer is to tell how likely its tokens were."""
        return LOGPROBS in (self.include or ())


def parse(body: bytes) -> CreateResponse:
    """Read a request body, or raise InvalidRequest that names the first field that is wrong."""
    fields = without_neutral(read_fields(body), NEUTRAL_FIELDS)
    if isinstance(fields.get("input"), list):
        fields["input"] = [_plain(message, f"input[{i}].") for i, message in enumerate(fields["input"])]
    return check_fields(CreateResponse, fields)


def _plain(message: Any, where: str) -> Any:
    return without_neutral(message, MESSAGE_FIELDS, where) if isinstance(message, dict) else message
