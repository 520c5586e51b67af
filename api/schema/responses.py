"""The body of a request for a response, exactly as OpenAI names it."""

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, StringConstraints, Tag
from pydantic_core import PydanticCustomError

from api.schema.neutral import without_neutral
from api.schema.request import InputAudio, MmProcessorKwargs, Schema, check_fields, read_fields
from api.schema.sampling import MAX_INT, MAX_PRIORITY, MAX_SEED, MAX_TOP_LOGPROBS
from api.schema.structure import JsonObjectFormat, JsonSchema, TextFormat
from api.schema.tool import MAX_ID_LENGTH, MAX_NAME_LENGTH, MAX_TOOLS, FunctionDefinition, ToolMode, choice_kind

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
    "truncation": ("disabled",),
}
"""Field → the values that ask for nothing; null always does."""

ITEM_FIELDS = {"async": (), "async_": (), "caller": (), "namespace": (), "phase": ()}
"""The same for one item of the input; OpenAI's client says null of them."""


def _kind(value: Any) -> Any:
    """Tell an item by its type; what has none is a message."""
    kind = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    return "message" if kind is None else kind


def _as_parts(value: Any) -> Any:
    if isinstance(value, str):
        return [{"type": "input_text", "text": value}]
    if not isinstance(value, list):
        raise PydanticCustomError("content_type", "must be a string or a list of content parts")
    return value


def _form(value: Any) -> str:
    """Which of the two forms is meant, so that only what is wrong with that one is told."""
    return "text" if isinstance(value, str) else "messages"


def _filled(value: list["InputItem"] | str) -> list["InputItem"] | str:
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


ItemStatus: TypeAlias = Literal["in_progress", "completed", "incomplete"]


class InputMessage(Schema):
    """One turn; an answer of ours may be sent back as it came."""

    type: Literal["message"] | None = None
    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[list[InputPart], BeforeValidator(_as_parts, json_schema_input_type=str | list[InputPart])]
    id: str | None = None
    status: ItemStatus | None = None


class CallItem(Schema):
    """A call that an earlier answer made."""

    type: Literal["function_call"]
    call_id: str = Field(min_length=1, max_length=MAX_ID_LENGTH)
    name: str = Field(min_length=1, max_length=MAX_NAME_LENGTH)
    arguments: str
    id: str | None = None
    status: ItemStatus | None = None


class ResultItem(Schema):
    """What a call returned."""

    type: Literal["function_call_output"]
    call_id: str = Field(min_length=1, max_length=MAX_ID_LENGTH)
    output: Annotated[list[InputText], BeforeValidator(_as_parts, json_schema_input_type=str | list[InputText])]
    id: str | None = None
    status: ItemStatus | None = None


InputItem: TypeAlias = Annotated[
    Annotated[InputMessage, Tag("message")]
    | Annotated[CallItem, Tag("function_call")]
    | Annotated[ResultItem, Tag("function_call_output")],
    Discriminator(_kind),
]


class ResponseTool(FunctionDefinition):
    """A tool; functions are the only ones there are, and here OpenAI has their fields beside the type."""

    type: Literal["function"]


def _function(value: Any) -> Any:
    if isinstance(value, dict) and value.get("type", "function") != "function":
        raise PydanticCustomError("tool_type", "functions are the only tools there are")
    return value


AnyTool: TypeAlias = Annotated[ResponseTool, BeforeValidator(_function, json_schema_input_type=ResponseTool)]


class ChosenTool(Schema):
    """The one tool to be called, or one of those that may be."""

    type: Literal["function"]
    name: str


class ChosenTools(Schema):
    """The choice to use some of the tools only."""

    type: Literal["allowed_tools"]
    mode: Literal["auto", "required"]
    tools: list[ChosenTool] = Field(min_length=1, max_length=MAX_TOOLS)


ResponseToolChoice: TypeAlias = Annotated[
    Annotated[ToolMode, Tag("mode")]
    | Annotated[ChosenTool, Tag("function")]
    | Annotated[ChosenTools, Tag("allowed_tools")],
    Discriminator(choice_kind),
]


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
    """Words, or the conversation as a list of messages, calls and their results."""
    instructions: str | None = None
    """The system text of this turn; a following response doesn't inherit it."""
    previous_response_id: str | None = None
    """A kept response whose conversation goes on."""
    background: bool | None = None
    """Answer at once with what was accepted; it is run whoever leaves, and read later."""
    store: bool | None = None
    """Whether it can be read and continued later; true if absent."""
    stream: bool | None = None
    stream_options: ResponseStreamOptions | None = None
    max_output_tokens: int | None = Field(None, ge=1, le=MAX_INT)
    """What the context leaves if absent."""
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    top_logprobs: int | None = Field(None, ge=0, le=MAX_TOP_LOGPROBS)
    include: list[Literal["message.output_text.logprobs", "reasoning.encrypted_content"]] | None = None
    """There is no reasoning here to be encrypted; agents ask for it of every model."""
    text: TextOptions | None = None
    """The form of the answer: text, JSON, or JSON of a schema."""
    tools: list[AnyTool] | None = Field(None, max_length=MAX_TOOLS)
    tool_choice: ResponseToolChoice | None = None
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
        fields["input"] = [_plain(item, f"input[{i}].") for i, item in enumerate(fields["input"])]
    return check_fields(CreateResponse, fields)


def _plain(entry: Any, where: str) -> Any:
    return without_neutral(entry, ITEM_FIELDS, where) if isinstance(entry, dict) else entry
