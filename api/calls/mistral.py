"""Reads `[TOOL_CALLS][{"name": …, "arguments": {…}}]`, and `[TOOL_CALLS]name[ARGS]{…}` of newer models.

A call's id may stand behind its arguments, or in the newer form behind `[CALL_ID]`; it is read over, because calls
are numbered here.
"""

import re
from collections.abc import Collection

from api.calls.object import ObjectReader
from api.calls.piece import Piece

MARK, ID, ARGS = "[TOOL_CALLS]", "[CALL_ID]", "[ARGS]"
_MAX_HEAD = 200
_HEAD = re.compile(rf"\s*(?P<name>[\w-]+)\s*(?:{re.escape(ID)}\s*\w*\s*)?{re.escape(ARGS)}\s*(?=\{{)")
_GROWING = re.compile(r"\s*[\w-]*\s*(?:\[[A-Z_]*(?:\]\s*\w*)?\s*){0,2}")
"""What a head may look like before it is complete."""


class MistralReader(ObjectReader):
    """Calls stand behind a mark, as one list or one behind the other."""

    def __init__(self, names: Collection[str]) -> None:
        super().__init__(names, self._text, words=self._text, behind=self._between)

    def _text(self, is_last: bool) -> list[Piece] | None:
        return self._said_before(MARK, self._marked, is_last=is_last)

    def _marked(self, is_last: bool) -> list[Piece] | None:
        start = self._held.find(MARK) + len(MARK)
        body = self._held[start:].lstrip()
        opened = body.removeprefix("[").lstrip() if body.startswith("[") else body
        if body.startswith("[") and opened.startswith("{"):
            return self._at_object(len(self._held) - len(opened), num_mark=start)
        if not opened and not is_last:
            return None
        return self._named(start, is_last)

    def _named(self, start: int, is_last: bool) -> list[Piece] | None:
        near = self._held[start : start + _MAX_HEAD]
        if (head := _HEAD.match(near)) and head["name"] in self._names:
            return self._begin(head["name"], start + head.end(), self._ended)
        if not is_last and len(near) < _MAX_HEAD and _GROWING.fullmatch(near) and self._may_name(near):
            return None
        self._step = self._text
        return self._said(start)

    def _may_name(self, near: str) -> bool:
        """Whether the word that a head begins with is a function's name, or may become one."""
        word = near.lstrip()
        return any(name.startswith(word) or re.match(rf"{re.escape(name)}(?![\w-])", word) for name in self._names)

    def _between(self, is_last: bool) -> list[Piece] | None:
        """Find out whether the list goes on or ends; behind a call of the newer form nothing of both follows."""
        rest = self._held.lstrip()
        body = rest.removeprefix(",").lstrip()
        if rest.startswith(",") and body.startswith("{"):
            return self._at_object(len(self._held) - len(body), num_mark=0)
        if not body and not is_last:
            return None
        self._held, self._step = rest.removeprefix("]") if body else "", self._text
        return []
