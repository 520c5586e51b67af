"""Reads `<tool_call>{"name": …, "arguments": {…}}</tool_call>`.

White space around a call is the format's. What a model says between a call's arguments and its end, and what looks
like a call but names no known function, stays text.
"""

import json
import re
from collections.abc import Callable, Collection, Iterator

from pydantic_core import from_json

from api.calls.piece import Arguments, CallBegun, Piece, Words, num_undecided
from api.calls.value import GrowingObject

BEGIN, END = "<tool_call>", "</tool_call>"
_HEAD = re.compile(
    rf'\s*{BEGIN}\s*\{{\s*"name"\s*:\s*"(?P<name>[\w-]+)"\s*,\s*"(?:arguments|parameters)"\s*:\s*(?=\{{)'
)
_REST_OF_OBJECT = re.compile(r"\s*\}?\s*")


class HermesReader:
    """Each step returns what it found out, or None if that depends on text that isn't there yet."""

    def __init__(self, names: Collection[str]) -> None:
        self._names = names
        self._held = ""
        self._step: Callable[[bool], list[Piece] | None] = self._words
        self._arguments = GrowingObject()
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

    def _words(self, is_last: bool) -> list[Piece] | None:
        begin = self._held.find(BEGIN)
        if begin >= 0:
            self._step = self._block
            return self._said(len(self._held[:begin].rstrip()))
        if is_last and self._is_behind_call and self._held.isspace():
            self._held = ""
            return []
        size = len(self._held) - (0 if is_last else num_undecided(self._held, BEGIN))
        return self._said(size) or None

    def _said(self, size: int) -> list[Piece]:
        """Take so much of what is held as words."""
        words, self._held = self._held[:size], self._held[size:]
        self._is_behind_call = self._is_behind_call and not words
        return [Words(words)] if words else []

    def _block(self, is_last: bool) -> list[Piece] | None:
        """Find out whether what begins like a call is one."""
        if head := _HEAD.match(self._held):
            return self._begin(head) if head["name"] in self._names else self._no_call()
        block = self._held.partition(BEGIN)[2]
        if not block.lstrip().startswith("{"):
            return self._no_call() if is_last or block.strip() else None
        if (end := block.find(END)) < 0 and not is_last:
            return None
        body = block if end < 0 else block[:end]
        if (pieces := self._whole(body)) is None:
            return self._no_call()
        self._held = "" if end < 0 else block[end + len(END) :]
        self._end_call()
        return pieces

    def _no_call(self) -> list[Piece]:
        self._step = self._words
        return self._said(self._held.find(BEGIN) + len(BEGIN))

    def _whole(self, body: str) -> list[Piece] | None:
        """Read a call whose parts stand in another order than models are told, or whose arguments are no object."""
        try:
            call = from_json(body)
        except ValueError:
            return None
        if not isinstance(call, dict) or not isinstance(name := call.get("name"), str) or name not in self._names:
            return None
        given = call.get("arguments", call.get("parameters", {}))
        return [CallBegun(name), Arguments(given if isinstance(given, str) else json.dumps(given, ensure_ascii=False))]

    def _begin(self, head: re.Match[str]) -> list[Piece]:
        self._held = self._held[head.end() :]
        self._step, self._arguments = self._given, GrowingObject(halt="<")
        return [CallBegun(head["name"])]

    def _given(self, is_last: bool) -> list[Piece] | None:
        size = self._arguments.take(self._held)
        given, self._held = self._held[:size], self._held[size:]
        pieces: list[Piece] = [Arguments(given)] if given else []
        if self._arguments.is_complete or self._held.startswith(END):
            self._step = self._tail
        elif self._held and (is_last or not END.startswith(self._held)):  # broken JSON: it is told as it was said
            pieces.append(Arguments(self._held[0]))
            self._held = self._held[1:]
        return pieces or (None if self._step == self._given else [])

    def _tail(self, is_last: bool) -> list[Piece] | None:
        rest_of_object = _REST_OF_OBJECT.match(self._held)
        assert rest_of_object is not None
        rest = self._held[rest_of_object.end() :]
        if not rest.startswith(END) and END.startswith(rest) and not is_last:
            return None
        self._held = "" if END.startswith(rest) else rest.removeprefix(END)
        self._end_call()
        return []

    def _end_call(self) -> None:
        self._step, self._is_behind_call = self._words, True
