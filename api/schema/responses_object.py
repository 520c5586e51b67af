"""A response as OpenAI's Responses API shows it."""

from typing import Any, Literal, TypeAlias

from pydantic import BaseModel, Field

from api.schema.response import TokenLogprob

Status: TypeAlias = Literal["queued", "in_progress", "completed", "incomplete", "failed", "cancelled"]


ItemStatus: TypeAlias = Literal["in_progress", "completed", "incomplete"]


class OutputText(BaseModel):
    """What the model said."""

    type: Literal["output_text"] = "output_text"
    text: str = ""
    annotations: list[Any] = []
    logprobs: list[TokenLogprob] = []


class OutputMessage(BaseModel):
    """The answer, as one message."""

    id: str
    type: Literal["message"] = "message"
    role: Literal["assistant"] = "assistant"
    status: ItemStatus = "in_progress"
    content: list[OutputText] = []


class FunctionCallItem(BaseModel):
    """One call that the model makes."""

    id: str
    type: Literal["function_call"] = "function_call"
    status: ItemStatus = "in_progress"
    call_id: str
    name: str
    arguments: str = ""


OutputItem: TypeAlias = OutputMessage | FunctionCallItem


class InputTokensDetails(BaseModel):
    """What is to be said of the input's tokens."""

    cached_tokens: int
    cache_write_tokens: int = 0


class OutputTokensDetails(BaseModel):
    """What is to be said of the answer's tokens."""

    reasoning_tokens: int = 0


class ResponseUsage(BaseModel):
    """Token counts of one response."""

    input_tokens: int
    input_tokens_details: InputTokensDetails
    output_tokens: int
    output_tokens_details: OutputTokensDetails = OutputTokensDetails()
    total_tokens: int


class ResponseError(BaseModel):
    """Why there is no (whole) answer."""

    code: str
    message: str
    param: str | None = None
    type: str | None = None


class IncompleteDetails(BaseModel):
    """Why the answer stops before its end."""

    reason: Literal["max_output_tokens"] = "max_output_tokens"


class Reasoning(BaseModel):
    """None of the models here reasons apart from its answer."""

    effort: None = None
    summary: None = None


class TextShown(BaseModel):
    """What was wished of the answer's text."""

    format: dict[str, Any] = {"type": "text"}
    verbosity: Literal["medium"] = "medium"


class ResponseObject(BaseModel):
    """A response, in whatever state it is."""

    id: str
    object: Literal["response"] = "response"
    created_at: int
    status: Status
    background: bool
    completed_at: None = None
    error: ResponseError | None = None
    incomplete_details: IncompleteDetails | None = None
    instructions: str | None
    max_output_tokens: int | None
    max_tool_calls: None = None
    metadata: dict[str, str]
    model: str
    output: list[OutputItem] = []
    parallel_tool_calls: bool
    previous_response_id: str | None
    prompt_cache_key: str | None
    reasoning: Reasoning = Reasoning()
    safety_identifier: str | None
    service_tier: Literal["default"] = "default"
    store: bool
    temperature: float
    text: TextShown
    tool_choice: str | dict[str, Any]
    tools: list[dict[str, Any]]
    top_logprobs: int
    top_p: float
    truncation: Literal["disabled"] = "disabled"
    usage: ResponseUsage | None = None
    user: str | None


class ResponseDeleted(BaseModel):
    """A response that is kept no longer."""

    id: str
    object: Literal["response"] = "response"
    deleted: Literal[True] = True


class ShownText(BaseModel):
    """Words of the input."""

    type: Literal["input_text"] = "input_text"
    text: str


class ShownMedium(BaseModel):
    """A medium of the input, without its bytes."""

    type: Literal["input_image", "input_video", "input_audio"]


class InputShown(BaseModel):
    """One message of the input."""

    id: str
    type: Literal["message"] = "message"
    role: Literal["system", "user", "assistant"]
    status: Literal["completed"] = "completed"
    content: list[ShownText | ShownMedium | OutputText]


class ResultShown(BaseModel):
    """What a call of the input returned."""

    id: str
    type: Literal["function_call_output"] = "function_call_output"
    status: Literal["completed"] = "completed"
    call_id: str
    output: str


class InputItemList(BaseModel):
    """The messages that a response answers, or some of them."""

    object: Literal["list"] = "list"
    data: list[InputShown | FunctionCallItem | ResultShown]
    first_id: str | None
    last_id: str | None
    has_more: bool = Field(description="Whether there are more in that direction.")
