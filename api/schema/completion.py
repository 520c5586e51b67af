"""The body of a completion of raw text, as OpenAI's older protocol names it, and the answer in its shape."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Field
from pydantic_core import PydanticCustomError

from api.schema.neutral import without_neutral
from api.schema.request import (
    ChatCompletionRequest,
    SpokenMessage,
    check_fields,
    read_fields,
    without_best_of_all,
)
from api.schema.response import Usage
from api.schema.sampling import MAX_INT, MAX_TOP_LOGPROBS, SampledRequest
from shared.errors import InvalidRequest
from shared.events import FinishReason

MAX_PROMPTS = 64
DEFAULT_MAX_TOKENS = 16
"""OpenAI's."""
NEUTRAL_FIELDS: dict[str, tuple[object, ...]] = {
    "add_special_tokens": (True,),
    "audios": ([],),
    "best_of": (1,),
    "early_stopping": (False,),
    "images": ([],),
    "include_stop_str_in_output": (False,),
    "length_penalty": (1, 1.0),
    "num_beams": (1,),
    "skip_special_tokens": (True,),
    "spaces_between_special_tokens": (True,),
    "suffix": ("",),
    "use_beam_search": (False,),
    "videos": ([],),
}
"""Field → the values that ask for nothing; raw text has no place for media."""


def _as_prompts(value: Any) -> Any:
    prompts = [value] if isinstance(value, str) or _are_tokens(value) else value
    if not isinstance(prompts, list) or not all(isinstance(p, str) or _are_tokens(p) for p in prompts):
        raise PydanticCustomError(
            "prompt", "must be a string, token ids, or a list of strings or of lists of token ids"
        )
    return prompts


def _are_tokens(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(type(i) is int and 0 <= i <= MAX_INT for i in value)


class CompletionRequest(SampledRequest):
    """What is to be continued; an absent field gets its default in validation."""

    prompt: Annotated[
        list[str | list[int]],
        BeforeValidator(_as_prompts, json_schema_input_type=str | list[str] | list[int] | list[list[int]]),
        Field(min_length=1, max_length=MAX_PROMPTS),
    ]
    echo: bool | None = None
    """Repeat the prompt in front of its continuation; not beside `logprobs`."""
    max_tokens: int | None = Field(None, ge=1, le=MAX_INT)
    """16 if absent."""
    logprobs: int | None = Field(None, ge=0, le=MAX_TOP_LOGPROBS)
    """Tell each token's log-probability, beside those of so many of the likeliest ones."""

    def as_chat(self) -> ChatCompletionRequest:
        """What a chat would ask for that asks for such an answer; all but the prompt."""
        own = {"prompt", "echo", "logprobs", "max_tokens", "user", "stream_options"}
        return ChatCompletionRequest(
            messages=[SpokenMessage(role="user", content=[])],
            logprobs=None if self.logprobs is None else True,
            top_logprobs=self.logprobs,
            max_tokens=self.max_tokens or DEFAULT_MAX_TOKENS,
            stream_options=self.stream_options,
            **self.model_dump(exclude=own),
        )


class TextLogprobs(BaseModel):
    r"""The tokens of a choice, or of a chunk of it; what is no text by itself is spelled `bytes:\xe4\xb8`."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int]
    """Where each token begins in the choice's text, in characters."""


class TextChoice(BaseModel):
    """One continuation, or a chunk's part of it; prompts are told apart by `index`, which counts all their choices."""

    index: int
    text: str
    logprobs: TextLogprobs | None = None
    finish_reason: FinishReason | None = None


class TextCompletion(BaseModel):
    """A plain response, or one frame of a streamed one."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    system_fingerprint: str | None = None
    choices: list[TextChoice]
    usage: Usage | None = None


def parse_completion(body: bytes) -> CompletionRequest:
    """Read a request body, or raise InvalidRequest that names the first field that is wrong."""
    fields = without_neutral(without_best_of_all(read_fields(body)), NEUTRAL_FIELDS)
    request = check_fields(CompletionRequest, fields)
    if request.echo and request.logprobs is not None:
        raise InvalidRequest("The tokens of a prompt are read and not scored: send echo or logprobs.", param="echo")
    return request
