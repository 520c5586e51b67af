"""What a chat and a continuation of raw text are asked alike: how tokens are chosen, and how the answer is told."""

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BeforeValidator, Field, StringConstraints

from api.schema.strict import Schema

MAX_INT = 2**31 - 1
MAX_SEED = 2**63 - 1
MAX_PRIORITY = 1000
MAX_STOP_STRINGS = 16
MAX_STOP_LENGTH = 256
MAX_BIASES = 1024
MAX_TOP_LOGPROBS = 20


def _wrapped(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


WRAPPED = BeforeValidator(_wrapped, json_schema_input_type=str | list[str] | None)
TokenId: TypeAlias = Annotated[str, StringConstraints(pattern="^[0-9]{1,9}$")]
"""JSON's keys are strings."""
StopString: TypeAlias = Annotated[str, Field(min_length=1, max_length=MAX_STOP_LENGTH)]


class StreamOptions(Schema):
    """What a stream carries beside the text."""

    include_usage: bool = False
    include_obfuscation: Literal[False] = False


class SampledRequest(Schema):
    """A request that tokens are drawn for; an absent field is None and gets its default in validation."""

    model: str
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=-1, le=MAX_INT)
    min_p: float | None = Field(None, ge=0, le=1)
    repetition_penalty: float | None = Field(None, gt=0, le=10)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    logit_bias: dict[TokenId, Annotated[float, Field(ge=-100, le=100)]] | None = Field(None, max_length=MAX_BIASES)
    n: int | None = Field(None, ge=1)
    """Answers to each prompt."""
    seed: int | None = Field(None, ge=-MAX_SEED - 1, le=MAX_SEED)
    stop: Annotated[list[StopString] | None, WRAPPED] = Field(None, max_length=MAX_STOP_STRINGS)
    min_tokens: int | None = Field(None, ge=0, le=MAX_INT)
    ignore_eos: bool | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    timeout: float | None = Field(None, gt=0)
    """Seconds from acceptance to the last token."""
    priority: int | None = Field(None, ge=-MAX_PRIORITY, le=MAX_PRIORITY)
    """Lower is served earlier, as in vLLM; 0 if absent."""
    user: str | None = None
    """Names the caller's own customer, in the request's trace."""
