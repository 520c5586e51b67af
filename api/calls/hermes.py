"""Reads `<tool_call>{"name": …, "arguments": {…}}</tool_call>`.

White space around a call is the format's. What a model says between a call's arguments and its end, and what looks
like a call but names no known function, stays text.
"""

from collections.abc import Collection

from api.calls.object import ObjectReader
from api.calls.piece import Piece

BEGIN, END = "<tool_call>", "</tool_call>"


class HermesReader(ObjectReader):
    """A call stands behind a mark, and another one ends it."""

    def __init__(self, names: Collection[str]) -> None:
        super().__init__(names, self._text, words=self._text, behind=self._tail, end=END)

    def _text(self, is_last: bool) -> list[Piece] | None:
        return self._said_before(BEGIN, self._marked, is_last=is_last)

    def _marked(self, is_last: bool) -> list[Piece] | None:
        return self._at_mark(BEGIN, is_last=is_last)

    def _tail(self, is_last: bool) -> list[Piece] | None:
        rest = self._held.lstrip()
        if not rest.startswith(END) and END.startswith(rest) and not is_last:
            return None
        self._held = "" if END.startswith(rest) else rest.removeprefix(END)
        self._step = self._text
        return []
