"""Reads `{"name": …, "parameters": {…}}`, as Llama 3.1 and 3.2 call functions.

No mark tells such a call from an answer in JSON, so that it is one only where the answer begins with it, behind
`<|python_tag|>`, or behind another call and a semicolon, and only if it names a function that may be called.
"""

from collections.abc import Collection

from api.calls.object import ObjectReader
from api.calls.piece import Piece

TAG = "<|python_tag|>"
SEPARATOR = ";"


class Llama3Reader(ObjectReader):
    """A call stands where the answer begins, behind a tag, or behind another call."""

    def __init__(self, names: Collection[str]) -> None:
        super().__init__(names, self._opening, words=self._text, behind=self._between)

    def _opening(self, is_last: bool) -> list[Piece] | None:
        body = self._held.lstrip()
        if body.startswith("{"):
            return self._at_object(len(self._held) - len(body), num_mark=0)
        if not body and not is_last:
            return None
        self._step = self._text
        return []

    def _text(self, is_last: bool) -> list[Piece] | None:
        return self._said_before(TAG, self._tagged, is_last=is_last)

    def _tagged(self, is_last: bool) -> list[Piece] | None:
        return self._at_mark(TAG, is_last=is_last)

    def _between(self, is_last: bool) -> list[Piece] | None:
        """Find out whether another call follows."""
        rest = self._held.lstrip()
        body = rest.removeprefix(SEPARATOR).lstrip()
        if body.startswith("{"):
            return self._at_object(len(self._held) - len(body), num_mark=0)
        if not body and not is_last:
            return None
        self._held, self._step = rest if body else "", self._text
        return []
