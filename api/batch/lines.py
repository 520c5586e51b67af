"""The lines of an input file: read one after the other, and checked as far as a whole batch hangs on them."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import msgspec
from pydantic import ValidationError

from api.batch.record import InputFault
from api.schema.batch import InputLine
from shared.errors import InternalError

MAX_FAULTS = 50
"""Faults that are told of one file; more wouldn't be read."""
MAX_INLINE_PARSE = 2**20
"""Bytes of a line that are parsed in the event loop; more is parsed in a thread."""


@dataclass(frozen=True, slots=True)
class Line:
    """One request of a batch."""

    number: int
    """From 1 on, blank lines counted."""
    custom_id: str
    body: bytes
    """A request's JSON."""


class LineTooLong(Exception):
    """A line is longer than a request may be."""

    def __init__(self, number: int) -> None:
        super().__init__(f"line {number}")
        self.number = number


async def split(pieces: AsyncIterator[bytes], max_bytes: int) -> AsyncIterator[tuple[int, bytes]]:
    """Yield the lines that aren't blank, with their numbers; raises LineTooLong."""
    number, rest = 0, bytearray()
    async for piece in pieces:
        *ended, begun = piece.split(b"\n")
        for line in ended:
            number += 1
            rest += line
            if len(rest) > max_bytes:
                raise LineTooLong(number)
            if rest.strip():
                yield number, bytes(rest)
            rest.clear()
        rest += begun
        if len(rest) > max_bytes:
            raise LineTooLong(number + 1)
    if rest.strip():
        yield number + 1, bytes(rest)


async def read_lines(pieces: AsyncIterator[bytes], max_bytes: int) -> AsyncIterator[Line]:
    """Yield the lines of a file that was checked before."""
    async for number, raw in split(pieces, max_bytes):
        try:
            line = msgspec.json.decode(raw, type=_Written)
        except msgspec.MsgspecError:
            raise InternalError from None
        yield Line(number, line.custom_id, bytes(line.body))


class _Written(msgspec.Struct):
    custom_id: str
    body: msgspec.Raw


@dataclass(slots=True)
class Findings:
    """What the check of a whole file found."""

    faults: list[InputFault] = field(default_factory=list)
    total: int = 0
    num_lines: int = 0
    model: str = ""


class InputCheck:
    """Checks what a batch as a whole hangs on; what only one line suffers from is left to that line's answer."""

    def __init__(self, endpoint: str, max_lines: int, max_line_bytes: int) -> None:
        self._endpoint = endpoint
        self._max_lines = max_lines
        self._max_line_bytes = max_line_bytes
        self._seen: set[str] = set()
        self._found = Findings()

    async def check(self, pieces: AsyncIterator[bytes]) -> Findings:
        """Read all lines, up to the first `MAX_FAULTS` faults."""
        found = self._found
        try:
            async for number, raw in split(pieces, self._max_line_bytes):
                found.num_lines, found.total = number, found.total + 1
                if found.total > self._max_lines:
                    self._blame("too_many_lines", f"A batch may have {self._max_lines} lines; divide it", number)
                    break
                await self._look_at(number, raw)
                if len(found.faults) >= MAX_FAULTS:
                    break
        except LineTooLong as error:
            self._blame("line_too_long", f"A line may have {self._max_line_bytes} bytes", error.number)
        if not found.total and not found.faults:
            self._blame("empty_file", "The input file has no line", None)
        return found

    async def _look_at(self, number: int, raw: bytes) -> None:
        decode = msgspec.json.decode
        try:
            fields = decode(raw) if len(raw) <= MAX_INLINE_PARSE else await asyncio.to_thread(decode, raw)
        except (msgspec.MsgspecError, RecursionError) as error:
            self._blame("invalid_json_line", f"This line is not valid JSON: {error}", number)
            return
        try:
            self._compare(number, InputLine.model_validate(fields))
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False)[0]
            param = ".".join(str(step) for step in first["loc"])[:200]
            code = "missing_required_parameter" if first["type"] == "missing" else "invalid_line"
            self._blame(code, f"{param or 'The line'}: {first['msg'][:300]}", number, param or None)

    def _compare(self, number: int, line: InputLine) -> None:
        """Hold the line against the batch and the lines before it."""
        model, found = line.body["model"], self._found
        if line.url != self._endpoint:
            self._blame("invalid_url", f"This line asks {line.url!r:.200}, the batch {self._endpoint!r}", number, "url")
        if line.custom_id in self._seen:
            self._blame("duplicate_custom_id", f"{line.custom_id!r:.200} stands in a line before", number, "custom_id")
        if model != (found.model or model):
            message = (
                f"This line asks the model {model!r:.200}, lines before it {found.model!r:.200}; make a batch of each"
            )
            self._blame("mismatched_model", message, number, "body.model")
        self._seen.add(line.custom_id)
        found.model = found.model or model

    def _blame(self, code: str, message: str, line: int | None, param: str | None = None) -> None:
        self._found.faults.append(InputFault(code=code, message=f"{message}.", line=line, param=param))
