"""What ms-swift 2.x calls a question: a query after a history of pairs, with media for the whole conversation."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, TypeAlias

from baton.client.conversion import TO_BASE64
from baton.client.medium import Medium
from baton.client.request import Body, Message, XRequestConfig, media_lists, options

History: TypeAlias = Sequence[Sequence[str]]
"""(query, answer) pairs."""

_ROLES = ("user", "assistant")
_DEFAULT_CHOICE = "auto"


@dataclass(frozen=True, slots=True)
class Question:
    """One call of an inference function, without where it goes."""

    model: str
    query: str
    history: History | None
    system: str | None
    images: Sequence[Medium] | None
    audios: Sequence[Medium] | None
    videos: Sequence[Medium] | None
    tools: list[dict[str, Any]] | None
    tool_choice: str | dict[str, Any] | None
    roles: Sequence[Sequence[str]] | None

    def chat_body(self, config: XRequestConfig, *, is_multimodal: bool) -> Body:
        """Return the body of a chat completion; files named in tags are read if the model takes media."""
        messages = self._messages()
        return self._body(config) | {
            "messages": [TO_BASE64.message(m) for m in messages] if is_multimodal else messages
        }

    def completion_body(self, config: XRequestConfig, *, is_multimodal: bool) -> Body:
        """Return the body of a completion; raise ValueError if there is more than a prompt."""
        if self.system is not None or self.history:
            raise ValueError("a model that only continues a text takes neither system nor history; leave them out")
        return self._body(config) | {"prompt": TO_BASE64.text(self.query) if is_multimodal else self.query}

    def _body(self, config: XRequestConfig) -> Body:
        tools: Body = {"tools": self.tools} if self.tools else {}
        if self.tool_choice and (self.tools or self.tool_choice != _DEFAULT_CHOICE):
            tools["tool_choice"] = self.tool_choice
        return {"model": self.model} | tools | media_lists(self.images, self.audios, self.videos) | options(config)

    def _messages(self) -> list[Message]:
        history = self.history or ()
        roles = self.roles or [_ROLES] * (len(history) + 1)
        if len(roles) != len(history) + 1:
            raise ValueError(f"roles has {len(roles)} pairs; it needs one for each of history and one for the query")
        messages = [] if self.system is None else [{"role": "system", "content": self.system}]
        for pair, turn in zip_longest(roles, history, fillvalue=(self.query,)):
            messages += [{"role": role, "content": said} for role, said in zip(pair, turn, strict=False)]
        return messages
