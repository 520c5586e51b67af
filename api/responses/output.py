"""What a response says: its message and the calls it makes, as the events of its job add to them. Pure."""

from dataclasses import dataclass, field
from typing import TypeAlias

from api.calls.reply import Addition, Replies
from api.completion import logprobs_of
from api.schema.responses_object import FunctionCallItem, ItemStatus, OutputItem, OutputMessage, OutputText
from shared.events import Started, TextDelta
from shared.job import JobId
from shared.progress import TokenLogprob
from shared.tools import Call


@dataclass(slots=True)
class Words:
    """The message, as it adds up."""

    id: str
    index: int
    text: list[str] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    _part: OutputText | None = None

    def part(self, *, is_whole: bool = False) -> OutputText:
        """What is said so far; made once where it is whole, because many events show it."""
        part = self._part or OutputText(text="".join(self.text), logprobs=logprobs_of(self.logprobs))
        self._part = part if is_whole else None
        return part


@dataclass(slots=True)
class Calling:
    """A call, as it adds up."""

    id: str
    index: int
    call_id: str
    name: str
    arguments: list[str] = field(default_factory=list)


Entry: TypeAlias = Words | Calling


@dataclass(frozen=True, slots=True)
class Begun:
    """An item begins."""

    entry: Entry


@dataclass(frozen=True, slots=True)
class Added:
    """An item goes on."""

    entry: Entry
    text: str
    logprobs: tuple[TokenLogprob, ...] = ()


Change: TypeAlias = Begun | Added


class Output:
    """Without calls there is one message, which begins when the answer does; otherwise items begin as they come."""

    def __init__(self, job_id: JobId) -> None:
        self._job_id = job_id
        self._replies: Replies | None = None
        self._words: Words | None = None
        self.entries: list[Entry] = []
        """The items, in the order in which they began."""

    @property
    def may_call(self) -> bool:
        """Whether there may be calls: then events and items are not one for one."""
        return self._replies is not None

    @property
    def text(self) -> str:
        """What the message says so far."""
        return "" if self._words is None else "".join(self._words.text)

    @property
    def calls(self) -> tuple[Call, ...]:
        """The calls so far."""
        callings = (entry for entry in self.entries if isinstance(entry, Calling))
        return tuple(Call(entry.call_id, entry.name, "".join(entry.arguments)) for entry in callings)

    def start(self, event: Started) -> list[Change]:
        """Begin."""
        self._replies = Replies.of(event.job_id, event.calling)
        return [] if self._replies is not None else [Begun(self._message([]))]

    def add(self, event: TextDelta) -> list[Change]:
        """Take the next text, and return what it adds."""
        if self._replies is not None:
            return self._read(self._replies.read(0, event.text))
        words = self._message([])
        words.text.append(event.text)
        words.logprobs += event.logprobs
        return [Added(words, event.text, event.logprobs)]

    def finish(self) -> list[Change]:
        """Return what was held back; there is a message even if nothing was said or called."""
        changes = [] if self._replies is None else self._read(self._replies.finish(0))
        if not self.entries:
            self._message(changes)
        return changes

    def shown(self, status: ItemStatus, *, is_whole: bool) -> list[OutputItem]:
        """The items as a response shows them."""
        return [shown(entry, status, is_whole=is_whole) for entry in self.entries]

    def _read(self, addition: Addition) -> list[Change]:
        changes: list[Change] = []
        if addition.content:
            words = self._message(changes)
            words.text.append(addition.content)
            changes.append(Added(words, addition.content))
        for part in addition.calls:
            if part.id is not None:
                calling = Calling(self._id("fc", part.number), len(self.entries), part.id, part.name or "")
                self.entries.append(calling)
                changes.append(Begun(calling))
            if part.arguments:
                calling = self._calling(part.number)
                calling.arguments.append(part.arguments)
                changes.append(Added(calling, part.arguments))
        return changes

    def _message(self, changes: list[Change]) -> Words:
        if self._words is None:
            self._words = Words(self._id("msg"), len(self.entries))
            self.entries.append(self._words)
            changes.append(Begun(self._words))
        return self._words

    def _calling(self, number: int) -> Calling:
        return [entry for entry in self.entries if isinstance(entry, Calling)][number]

    def _id(self, kind: str, number: int | None = None) -> str:
        stem = f"{kind}_{self._job_id.removeprefix('resp_')}"
        return stem if number is None else f"{stem}_{number}"


def shown(entry: Entry, status: ItemStatus, *, is_whole: bool) -> OutputItem:
    """The item as events and responses show it."""
    if isinstance(entry, Words):
        return OutputMessage(id=entry.id, status=status, content=[entry.part(is_whole=is_whole)])
    arguments = "".join(entry.arguments)
    return FunctionCallItem(id=entry.id, status=status, call_id=entry.call_id, name=entry.name, arguments=arguments)
