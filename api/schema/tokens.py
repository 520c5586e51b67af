"""Questions to a model's tokenizer and their answers, in vLLM's shape."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, Field, model_validator

from api.schema.request import (
    ChatCompletionRequest,
    ChatMessage,
    MmProcessorKwargs,
    Schema,
    SpokenMessage,
    TemplateVariables,
)
from api.schema.sampling import MAX_INT, WRAPPED
from shared.errors import InvalidRequest


class TokenizeRequest(Schema):
    """A text as it stands, or a conversation as the model reads it."""

    model: str
    prompt: str | None = None
    messages: list[ChatMessage] | None = None
    add_special_tokens: bool | None = None
    """Begin a prompt as the tokenizer does; true if absent. Conversations have what their template writes."""
    add_generation_prompt: Literal[True] | None = None
    """A conversation always ends where the answer begins."""
    return_token_strs: bool | None = None
    """Tell each token's text as well."""
    images: Annotated[list[str] | None, WRAPPED] = None
    videos: Annotated[list[str] | None, WRAPPED] = None
    audios: Annotated[list[str] | None, WRAPPED] = None
    mm_processor_kwargs: MmProcessorKwargs | None = None
    chat_template_kwargs: TemplateVariables | None = None

    @model_validator(mode="after")
    def _is_one_question(self) -> Self:
        if (self.prompt is None) == (self.messages is None):
            raise InvalidRequest("Send either prompt or messages.", param="prompt")
        chats = self.model_fields_set - {"model", "prompt", "return_token_strs", "add_special_tokens"}
        if self.prompt is not None and (wrong := sorted(name for name in chats if getattr(self, name) is not None)):
            raise InvalidRequest(f"{wrong[0]} goes with messages, not with prompt.", param=wrong[0])
        if self.messages is not None and self.add_special_tokens:
            raise InvalidRequest("add_special_tokens goes with prompt, not with messages.", param="add_special_tokens")
        return self

    def as_chat(self) -> ChatCompletionRequest:
        """The chat whose prompt is asked about; it has the conversation's media."""
        own = {"prompt", "messages", "add_special_tokens", "add_generation_prompt", "return_token_strs"}
        asked = {name: getattr(self, name) for name in type(self).model_fields if name not in own}
        empty: list[ChatMessage] = [SpokenMessage(role="user", content=[])]
        return ChatCompletionRequest(messages=empty if self.messages is None else self.messages, **asked)

    def raw_prompt(self) -> str | None:
        """What is asked about, if it is no conversation."""
        return self.prompt

    def is_bare(self) -> bool:
        """Whether nothing is put in front of a prompt."""
        return self.add_special_tokens is False


class DetokenizeRequest(Schema):
    """Tokens whose text is asked for."""

    model: str
    tokens: list[Annotated[int, Field(ge=0, le=MAX_INT)]]
    """Their ids."""

    def as_chat(self) -> ChatCompletionRequest:
        """A chat that is accepted where the question is."""
        return ChatCompletionRequest(model=self.model, messages=[SpokenMessage(role="user", content=[])])

    def raw_prompt(self) -> tuple[int, ...]:
        """What is asked about."""
        return tuple(self.tokens)

    def is_bare(self) -> bool:
        """Tokens are what they are."""
        return True


class Tokenized(BaseModel):
    """A prompt's tokens."""

    count: int
    max_model_len: int
    """Most tokens of prompt and answer together."""
    tokens: list[int]
    token_strs: list[str] | None = None
    """Each token by itself, if asked for; half a character is U+FFFD."""


class Detokenized(BaseModel):
    """The text of some tokens, control tokens spelled out."""

    prompt: str
