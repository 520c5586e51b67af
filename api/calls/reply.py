"""An answer with calls in it: what each of its events adds, in the terms of OpenAI's schema."""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Literal, TypeAlias

from api.calls.hermes import HermesReader
from api.calls.llama3 import Llama3Reader
from api.calls.mistral import MistralReader
from api.calls.piece import Arguments, CallBegun, Piece, Words
from api.calls.react import ReactReader
from api.calls.reader import Reader
from shared.events import FinishReason
from shared.job import JobId
from shared.tools import MISTRAL_ID_LENGTH, Calling, ToolFormat

READERS: Mapping[ToolFormat, Callable[[Collection[str]], Reader]] = {
    ToolFormat.HERMES: HermesReader,
    ToolFormat.REACT: ReactReader,
    ToolFormat.LLAMA3_JSON: Llama3Reader,
    ToolFormat.MISTRAL: MistralReader,
}
EndReason: TypeAlias = FinishReason | Literal["tool_calls"]
"""What ends with calls doesn't end otherwise for the model, but it does for its client."""


@dataclass(slots=True)
class CallPart:
    """What an event adds to one call."""

    number: int
    """Of the call within its choice, from 0."""
    id: str | None
    """With the name, where the call begins; None where it goes on."""
    name: str | None
    arguments: str = ""


@dataclass(slots=True)
class Addition:
    """What an event adds to one choice."""

    content: str = ""
    calls: list[CallPart] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.content or self.calls)


class _Choice:
    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self.num_calls = 0


class Replies:
    """The choices of one answer; given all of its events from the first, it says the same at any gateway."""

    def __init__(self, job_id: JobId, calling: Calling) -> None:
        self._job_id = job_id
        self._format = calling.format
        self._is_named = calling.is_named
        new_reader = READERS[calling.format]
        self._choices = defaultdict[int, _Choice](lambda: _Choice(new_reader(frozenset(calling.names))))

    @classmethod
    def of(cls, job_id: JobId, calling: Calling | None) -> "Replies | None":
        """Return the replies to a job; None if there can't be a call in them."""
        return cls(job_id, calling) if calling is not None and calling.names else None

    def read(self, index: int, text: str) -> Addition:
        """Take the next text of a choice."""
        return self._added(index, self._choices[index].reader.push(text))

    def finish(self, index: int) -> Addition:
        """Return what was held back of a choice that is complete."""
        return self._added(index, self._choices[index].reader.finish())

    def end_reason(self, index: int, reason: FinishReason) -> EndReason:
        """Return why a choice ended: a call is a reason, except where the client named the function."""
        has_called = self._choices[index].num_calls > 0
        return "tool_calls" if has_called and reason is FinishReason.STOP and not self._is_named else reason

    def _added(self, index: int, pieces: Iterable[Piece]) -> Addition:
        addition, choice = Addition(), self._choices[index]
        for piece in pieces:
            match piece:
                case Words(text):
                    addition.content += text
                case CallBegun(name):
                    addition.calls.append(self._begin(index, choice.num_calls, name))
                    choice.num_calls += 1
                case Arguments(text):
                    self._open(addition, choice.num_calls - 1).arguments += text
        return addition

    def _begin(self, index: int, number: int, name: str) -> CallPart:
        digest = sha256(f"{self._job_id}/{index}/{number}".encode()).hexdigest()
        is_short = self._format is ToolFormat.MISTRAL
        return CallPart(number, digest[:MISTRAL_ID_LENGTH] if is_short else f"call_{digest[:24]}", name)

    def _open(self, addition: Addition, number: int) -> CallPart:
        """Return this event's part of a call."""
        if not addition.calls or addition.calls[-1].number != number:
            addition.calls.append(CallPart(number, None, None))
        return addition.calls[-1]
