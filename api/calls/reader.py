"""Reading an answer as it grows, step by step; what the steps look for is each format's own."""

from collections.abc import Callable, Collection, Iterator
from typing import TypeAlias

from api.calls.piece import Piece, Words, num_undecided

Step: TypeAlias = Callable[[bool], list[Piece] | None]
"""Takes whether the text is complete; says what it found out, or None if that depends on text that isn't there yet."""


class Reader:
    """Reads one choice; what may still become a call is held back, and no more than that."""

    def __init__(self, names: Collection[str], first: Step) -> None:
        self._names = names
        self._held = ""
        self._step = first
        self._is_behind_call = False

    def push(self, text: str) -> list[Piece]:
        """Take the next text; return what is certain by now."""
        self._held += text
        return list(self._read(is_last=False))

    def finish(self) -> list[Piece]:
        """Return what was held back."""
        return list(self._read(is_last=True))

    def _read(self, *, is_last: bool) -> Iterator[Piece]:
        while self._held and (pieces := self._step(is_last)) is not None:
            yield from pieces

    def _said(self, size: int) -> list[Piece]:
        """Take so much of what is held as words."""
        words, self._held = self._held[:size], self._held[size:]
        self._is_behind_call = self._is_behind_call and not words
        return [Words(words)] if words else []

    def _said_before(self, mark: str, at_mark: Step, *, is_last: bool) -> list[Piece] | None:
        """Take what stands before a mark as words, without the white space between them; go on at the mark."""
        begin = self._held.find(mark)
        if begin >= 0:
            self._step = at_mark
            return self._said(len(self._held[:begin].rstrip()))
        if is_last and self._is_behind_call and self._held.isspace():
            self._held = ""
            return []
        size = len(self._held) - (0 if is_last else num_undecided(self._held, mark))
        return self._said(size) or None
