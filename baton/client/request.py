"""What may be asked, in the words of ms-swift's clients, and the body that it becomes."""

from collections.abc import Sequence
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Any, TypeAlias

from baton.client.conversion import with_address
from baton.client.medium import Medium, as_base64, as_uri

Message: TypeAlias = dict[str, Any]
Body: TypeAlias = dict[str, Any]


@dataclass
class XRequestConfig:
    """How to answer, as ms-swift 2.x names it; only what differs from these values is sent."""

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    n: int = 1
    seed: int | None = None
    stop: list[str] | None = None
    stream: bool = False
    logprobs: bool = False
    top_logprobs: int | None = None
    best_of: int | None = None
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    length_penalty: float = 1.0
    num_beams: int = 1
    top_k: int | None = None
    repetition_penalty: float | None = None


@dataclass
class RequestConfig:
    """How to answer, as ms-swift 3.x and 4.x name it; only what differs from these values is sent."""

    max_tokens: int | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    num_beams: int = 1
    stop: list[str] = field(default_factory=list)
    seed: int | None = None
    stream: bool = False
    logprobs: bool = False
    top_logprobs: int | None = None
    prompt_logprobs: int | None = None
    n: int = 1
    best_of: int | None = None
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    length_penalty: float = 1.0
    return_details: bool = False
    structured_outputs_regex: str | None = None
    mm_processor_kwargs: dict[str, Any] = field(default_factory=dict)
    """Wishes about pictures and clips, as `{"num_frames": 16}`; Baton's and vLLM's, not ms-swift's."""


@dataclass
class InferRequest:
    """One conversation; the media of the lists belong to the whole of it, in order."""

    messages: list[Message]
    images: list[Medium] = field(default_factory=list)
    audios: list[Medium] = field(default_factory=list)
    videos: list[Medium] = field(default_factory=list)
    tools: list[dict[str, Any]] | None = None
    objects: dict[str, Any] = field(default_factory=dict)
    chat_template_kwargs: dict[str, Any] = field(default_factory=dict)


def body_of(model: str, request: InferRequest, config: RequestConfig) -> Body:
    """Return the body of a chat completion; local files and pictures are read into it."""
    messages = [_with_media_inside(message) for message in request.messages]
    media = media_lists(request.images, request.audios, request.videos)
    return named(request) | {"model": model, "messages": messages} | media | options(config)


def options(config: XRequestConfig | RequestConfig) -> Body:
    """Return the fields that were set; a stream is asked to end in its usage."""
    return named(config) | ({"stream_options": {"include_usage": True}} if config.stream else {})


def media_lists(
    images: Sequence[Medium] | None, audios: Sequence[Medium] | None, videos: Sequence[Medium] | None
) -> dict[str, list[str]]:
    """Return the top-level lists that are not empty."""
    lists = {"images": images, "audios": audios, "videos": videos}
    return {name: [as_base64(medium) for medium in media] for name, media in lists.items() if media}


def named(asked: XRequestConfig | RequestConfig | InferRequest) -> Body:
    """Return the fields whose value is not their default."""
    return {f.name: value for f in fields(asked) if (value := getattr(asked, f.name)) != _default(f)}


def _default(field_: Field[Any]) -> Any:
    return field_.default if field_.default_factory is MISSING else field_.default_factory()


def _with_media_inside(message: Message) -> Message:
    """Only parts: a tag in a text that somebody else wrote must not name a file of this machine."""
    content = message.get("content")
    return message | {"content": [with_address(p, as_uri) for p in content]} if isinstance(content, list) else message
