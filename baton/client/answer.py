"""The bodies that a server sends, as the plain dataclasses that scripts read attributes of."""

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Model:
    """One entry of the model list."""

    id: str
    object: str = "model"
    created: int = 0
    owned_by: str = ""
    is_chat: bool = True
    is_multimodal: bool = False


@dataclass
class ModelList:
    """The models that can be asked now."""

    data: list[Model]
    object: str = "list"


@dataclass
class UsageInfo:
    """Token counts of one answer."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0


@dataclass
class Function:
    """What a tool is called with; `arguments` is JSON."""

    name: str = ""
    arguments: str = ""


@dataclass
class ToolCall:
    """One call of a tool, or in a stream a part of one."""

    function: Function
    id: str = ""
    type: str = "function"
    index: int = 0


@dataclass
class ChatMessage:
    """The whole answer."""

    role: str = "assistant"
    content: str = ""
    tool_calls: list[ToolCall] | None = None
    reasoning_content: str | None = None


@dataclass
class ChatCompletionResponseChoice:
    """One of the answers of a plain response."""

    message: ChatMessage
    index: int = 0
    finish_reason: str | None = None
    logprobs: dict[str, Any] | None = None


@dataclass
class ChatCompletionResponse:
    """A plain response to a conversation."""

    choices: list[ChatCompletionResponseChoice]
    model: str = ""
    usage: UsageInfo | None = None
    id: str = ""
    object: str = "chat.completion"
    created: int = 0


@dataclass
class DeltaMessage:
    """What a chunk adds; `content` is never None, so that it can be printed as it is."""

    role: str = "assistant"
    content: str = ""
    tool_calls: list[ToolCall] | None = None
    reasoning_content: str | None = None


@dataclass
class ChatCompletionResponseStreamChoice:
    """One answer's part of a chunk."""

    delta: DeltaMessage = field(default_factory=DeltaMessage)
    index: int = 0
    finish_reason: str | None = None
    logprobs: dict[str, Any] | None = None


@dataclass
class ChatCompletionStreamResponse:
    """One chunk of a streamed response; the last one has the usage."""

    choices: list[ChatCompletionResponseStreamChoice]
    model: str = ""
    usage: UsageInfo | None = None
    id: str = ""
    object: str = "chat.completion.chunk"
    created: int = 0


@dataclass
class CompletionResponseChoice:
    """One continuation of a prompt, or in a stream a part of one."""

    text: str = ""
    index: int = 0
    finish_reason: str | None = None
    logprobs: dict[str, Any] | None = None


@dataclass
class CompletionResponse:
    """A plain response to a prompt."""

    choices: list[CompletionResponseChoice]
    model: str = ""
    usage: UsageInfo | None = None
    id: str = ""
    object: str = "text_completion"
    created: int = 0


@dataclass
class CompletionStreamResponse:
    """One chunk of a streamed continuation; the last one has the usage."""

    choices: list[CompletionResponseChoice]
    model: str = ""
    usage: UsageInfo | None = None
    id: str = ""
    object: str = "text_completion.chunk"
    created: int = 0
