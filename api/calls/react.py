"""Reads ReAct: `Thought: …`, `Action: name`, `Action Input: {…}`, and in the end `Final Answer: …`.

As in the authors' own server (QwenLM/Qwen, openai_api.py of 2023) the thought before a call is what is said with it,
and the thought before the final answer is left out. A text without these lines is an answer as it is.
"""

import re
from collections.abc import Collection
from typing import Literal

from api.calls.piece import Arguments, CallBegun, Piece, Words, num_undecided
from api.calls.reader import Reader
from api.calls.value import GrowingObject

THOUGHT, ACTION, INPUT, FINAL = "Thought:", "Action:", "Action Input:", "Final Answer:"
_TURN = re.compile(rf"\n(?:{ACTION}|{FINAL})")
_ACTION_LINE = re.compile(rf"{ACTION}(?P<name>[^\n]*)\n\s*")
_MAX_LINE = 200
"""Longer than any function's name: such a line is text."""


class ReactReader(Reader):
    """Finds calls in lines; behind a call, the next lines are looked at like the first ones."""

    def __init__(self, names: Collection[str]) -> None:
        super().__init__(names, self._label)
        self._arguments = GrowingObject()

    def _label(self, is_last: bool) -> list[Piece] | None:
        """Find out which line the text begins with, or goes on with behind a call."""
        body = self._held.lstrip()
        if not is_last and any(label.startswith(body) for label in (THOUGHT, ACTION, FINAL)):
            return None
        if body.startswith(THOUGHT):
            self._step = self._thought
        elif body.startswith(FINAL):
            self._held, self._step = body.removeprefix(FINAL), self._final
        elif body.startswith(ACTION):
            return self._call_at(len(self._held) - len(body), "", is_last)
        elif not body and self._is_behind_call:
            self._held = ""
        else:
            self._step = self._words
        return []

    def _thought(self, is_last: bool) -> list[Piece] | None:
        """Hold a thought until it is known what it leads to."""
        for turn in _TURN.finditer(self._held):
            if turn[0].endswith(FINAL):
                self._held, self._step = self._held[turn.end() :], self._final
                return []
            match self._find_call(turn.start() + 1, is_last):
                case "undecided":
                    return None
                case "call":
                    thought = self._held[: turn.start()].lstrip().removeprefix(THOUGHT).strip()
                    return self._call_at(turn.start() + 1, thought, is_last)
        if not is_last:
            return None
        self._step = self._words
        return []

    def _final(self, is_last: bool) -> list[Piece] | None:
        """Skip the blanks before the final answer."""
        self._held = self._held.lstrip()
        self._step = self._words if self._held else self._step
        return []

    def _words(self, is_last: bool) -> list[Piece] | None:
        for turn in re.finditer(f"\n{ACTION}", self._held):
            match self._find_call(turn.start() + 1, is_last):
                case "undecided":
                    return self._said(len(self._held[: turn.start()].rstrip())) or None
                case "call":
                    return self._call_at(turn.start() + 1, self._held[: turn.start()].rstrip(), is_last)
        size = len(self._held) - (0 if is_last else num_undecided(self._held, f"\n{ACTION}"))
        return self._said(size) or None

    def _find_call(self, start: int, is_last: bool) -> Literal["call", "text", "undecided"]:
        """Say what stands at this action's line."""
        line = _ACTION_LINE.match(self._held, start)
        if line is None:
            is_short = "\n" not in self._held[start:] and len(self._held) - start < _MAX_LINE
            return "undecided" if is_short and not is_last else "text"
        if line["name"].strip() not in self._names:
            return "text"
        rest = self._held[line.end() :]
        if rest.startswith(INPUT):
            return "call"
        return "undecided" if INPUT.startswith(rest) and not is_last else "text"

    def _call_at(self, start: int, words: str, is_last: bool) -> list[Piece] | None:
        """Begin the call whose line starts here, if it is one."""
        found = self._find_call(start, is_last)
        if found == "undecided":
            return None
        if found == "text":
            self._step = self._words
            return []
        line = _ACTION_LINE.match(self._held, start)
        assert line is not None
        self._held = self._held[line.end() + len(INPUT) :]
        self._step = self._input
        begun: list[Piece] = [CallBegun(line["name"].strip())]
        return [Words(words), *begun] if words else begun

    def _input(self, is_last: bool) -> list[Piece] | None:
        """Skip the blanks before the arguments."""
        self._held = self._held.lstrip()
        if self._held:
            self._arguments = GrowingObject()
            self._step = self._object if self._held.startswith("{") else self._raw
        return []

    def _object(self, is_last: bool) -> list[Piece] | None:
        size = self._arguments.take(self._held)
        given, self._held = self._held[:size], self._held[size:]
        if self._arguments.is_complete:
            self._step, self._is_behind_call = self._label, True
        return [Arguments(given)]

    def _raw(self, is_last: bool) -> list[Piece] | None:
        """What is no object goes on to the answer's end."""
        given = self._held.rstrip()
        self._held = "" if is_last else self._held[len(given) :]
        return [Arguments(given)] if given else (None if self._held else [])
