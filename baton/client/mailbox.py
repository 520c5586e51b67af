"""Carries one stream's chunks out of the thread that receives them."""

from collections.abc import Iterator
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Event

from baton.client.answer import ChatCompletionStreamResponse


@dataclass(frozen=True, slots=True)
class _End:
    error: BaseException | None


class Mailbox:
    """One thread puts chunks in and ends it, another one drains it."""

    def __init__(self) -> None:
        self._is_left = Event()
        self._queue: SimpleQueue[ChatCompletionStreamResponse | _End] = SimpleQueue()

    @property
    def is_left(self) -> bool:
        """Whether nobody will read on."""
        return self._is_left.is_set()

    def put(self, chunk: ChatCompletionStreamResponse) -> None:
        """Add a chunk."""
        self._queue.put(chunk)

    def end(self, error: BaseException | None) -> None:
        """Say that no chunk follows, and why if it should not be so; only the first time counts."""
        self._queue.put(_End(error))

    def drain(self) -> Iterator[ChatCompletionStreamResponse]:
        """Yield the chunks as they come, and raise the error it ended in."""
        try:
            while not isinstance(got := self._queue.get(), _End):
                yield got
        finally:
            self._is_left.set()
        if got.error is not None:
            raise got.error
