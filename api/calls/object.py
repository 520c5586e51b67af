"""Reads calls that are JSON objects of a name and arguments; what stands around them is each format's own."""

import json
import re
from collections.abc import Collection

from pydantic_core import from_json

from api.calls.piece import Arguments, CallBegun, Piece
from api.calls.reader import Reader, Step
from api.calls.value import GrowingObject

_HEAD = re.compile(
    r'\{\s*(?:"type"\s*:\s*"function"\s*,\s*)?"name"\s*:\s*"(?P<name>[\w-]+)"\s*,'
    r'\s*"(?:arguments|parameters)"\s*:\s*(?=\{)'
)
_NO_CALL = re.compile(r'\{\s*(?:[^\s"]|"(?!(?:type|id|name|arguments|parameters)")[^"]*")')
"""Begins like an object, but not like a call's."""
_CLOSE = re.compile(r'\s*(?:,\s*"id"\s*:\s*"\w*"\s*)?\}')
_MAX_CLOSE = 64


class ObjectReader(Reader):
    """Each call is found by its format, which says where it begins (`_at_object`) and what may follow (`_behind`)."""

    def __init__(self, names: Collection[str], first: Step, words: Step, behind: Step, end: str = "") -> None:
        """`end` is a mark that ends a call even where its JSON is broken; it begins with no character of JSON's."""
        super().__init__(names, first)
        self._words = words
        self._behind = behind
        self._end = end
        self._num_mark = self._num_taken = 0
        self._arguments = GrowingObject()

    def _at_object(self, start: int, num_mark: int) -> list[Piece] | None:
        """Go on with the object that begins at `start`; if it is no call, the `num_mark` characters are words."""
        self._num_mark, self._num_taken, self._arguments = num_mark, start, GrowingObject(halt=self._end[:1])
        self._start, self._step = start, self._object
        return []

    def _at_mark(self, mark: str, *, is_last: bool) -> list[Piece] | None:
        """Go on with the object behind a mark; if there is none, the mark is words."""
        start = self._held.find(mark) + len(mark)
        body = self._held[start:].lstrip()
        if body.startswith("{"):
            return self._at_object(len(self._held) - len(body), num_mark=start)
        if not body and not is_last:
            return None
        self._step = self._words
        return self._said(start)

    def _no_call(self) -> list[Piece]:
        self._step = self._words
        return self._said(self._num_mark)

    def _object(self, is_last: bool) -> list[Piece] | None:
        """Find out whether the object is a call."""
        if head := _HEAD.match(self._held, self._start):
            known = head["name"] in self._names
            return self._begin(head["name"], head.end(), self._close) if known else self._no_call()
        if _NO_CALL.match(self._held, self._start):
            return self._no_call()
        self._num_taken += self._arguments.take(self._held[self._num_taken :])
        if self._arguments.is_complete:
            return self._whole(self._held[self._start : self._num_taken])
        return self._no_call() if is_last or self._num_taken < len(self._held) else None

    def _whole(self, text: str) -> list[Piece]:
        """Read a call whose parts stand in another order than models are told, or whose arguments are no object."""
        try:
            call = from_json(text)
        except ValueError:
            return self._no_call()
        if not isinstance(name := call.get("name"), str) or name not in self._names:
            return self._no_call()
        self._held, self._step = self._held[self._num_taken :], self._ended
        given = call.get("arguments", call.get("parameters", {}))
        return [CallBegun(name), Arguments(given if isinstance(given, str) else json.dumps(given, ensure_ascii=False))]

    def _begin(self, name: str, start: int, then: Step) -> list[Piece]:
        """Go on with the arguments that begin at `start`, and behind them with `then`."""
        self._held = self._held[start:]
        self._step, self._then, self._arguments = self._given, then, GrowingObject(halt=self._end[:1])
        return [CallBegun(name)]

    def _given(self, is_last: bool) -> list[Piece] | None:
        size = self._arguments.take(self._held)
        given, self._held = self._held[:size], self._held[size:]
        pieces: list[Piece] = [Arguments(given)] if given else []
        if self._arguments.is_complete or (self._end and self._held.startswith(self._end)):
            self._step = self._then
        elif self._held and (is_last or not self._end.startswith(self._held)):  # broken JSON: it is told as it was said
            pieces.append(Arguments(self._held[0]))
            self._held = self._held[1:]
        return pieces or (None if self._step == self._given else [])

    def _close(self, is_last: bool) -> list[Piece] | None:
        """Skip the end of the call's own object, with an id that may stand there."""
        near = self._held[:_MAX_CLOSE]
        if close := _CLOSE.match(near):
            self._held = self._held[close.end() :]
        elif not is_last and len(near) < _MAX_CLOSE and near.lstrip()[:1] in {"", ","} and "}" not in near:
            return None
        return self._ended(is_last)

    def _ended(self, is_last: bool) -> list[Piece] | None:
        self._step, self._is_behind_call = self._behind, True
        return []
