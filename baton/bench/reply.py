"""Reads an answer as its bytes arrive, plain or as server-sent events, into the measurement of its request."""

from typing import Any

import msgspec

from baton.bench.measurement import Measurement

MAX_KIND = 60
"""Characters of a kind of error."""


class _Delta(msgspec.Struct):
    content: Any = None
    reasoning_content: Any = None
    reasoning: Any = None
    tool_calls: Any = None

    @property
    def has_tokens(self) -> bool:
        return bool(self.content or self.reasoning_content or self.reasoning or self.tool_calls)


class _Choice(msgspec.Struct):
    delta: _Delta | None = None
    message: _Delta | None = None
    finish_reason: str | None = None


class _Details(msgspec.Struct):
    cached_tokens: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_tokens_details: _Details | None = None


class _Chunk(msgspec.Struct):
    """A whole answer, one chunk of it, or an error; other fields are skipped."""

    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    error: Any = None
    object: str | None = None
    message: Any = None
    code: Any = None


_decode = msgspec.json.Decoder(_Chunk).decode


class Reply:
    """One answer on its way; `feed` and `end` are given the moments, so that reading is not measured."""

    def __init__(self, measurement: Measurement) -> None:
        self.text: list[str] = []
        self._measurement = measurement
        self._status = 200
        self._is_stream = False
        self._body = b""
        self._last_s = 0.0
        self._is_complete = False

    def begin(self, status: int, content_type: str) -> None:
        """Take the status line and the headers."""
        self._status = status
        self._is_stream = status < 400 and content_type.startswith("text/event-stream")

    def feed(self, received: bytes, now_s: float) -> None:
        """Take a piece of the body."""
        self._body += received
        if self._is_stream and b"\n" in received:
            *lines, self._body = self._body.split(b"\n")
            for line in lines:
                if line.startswith(b"data:"):
                    self._event(line[5:].strip(), now_s)

    def end(self, now_s: float) -> None:
        """Say that the body is complete."""
        if not self._is_stream:
            self._whole()
        elif not self._is_complete:
            self._fail("stream ended without a finish_reason")
        if not self._measurement.num_tokens:
            self._fail("answer without tokens")
        self._measurement.ended_s = now_s

    def _event(self, payload: bytes, now_s: float) -> None:
        if payload == b"[DONE]":
            self._is_complete = True
            return
        chunk = self._read(payload)
        if chunk is None or self._refuses(chunk):
            return
        for choice in chunk.choices or ():
            self._is_complete |= choice.finish_reason is not None
            if choice.delta is not None and choice.delta.has_tokens:
                self._tokens(choice.delta, now_s)
        self._count(chunk.usage)

    def _tokens(self, delta: _Delta, now_s: float) -> None:
        measurement = self._measurement
        if measurement.first_s is None:
            measurement.first_s = now_s
        else:
            measurement.gaps_s.append(now_s - self._last_s)
        measurement.num_chunks += 1
        self._last_s = now_s
        self._say(delta)

    def _whole(self) -> None:
        chunk = self._read(self._body)
        if chunk is None or self._refuses(chunk):
            return
        for choice in chunk.choices or ():
            if choice.message is not None and choice.message.has_tokens:
                self._measurement.num_chunks += 1
                self._say(choice.message)
        self._count(chunk.usage)

    def _say(self, delta: _Delta) -> None:
        if isinstance(delta.content, str):
            self.text.append(delta.content)

    def _count(self, usage: _Usage | None) -> None:
        if usage is None:
            return
        self._measurement.prompt_tokens = usage.prompt_tokens
        self._measurement.usage_tokens = usage.completion_tokens
        if usage.prompt_tokens_details is not None:
            self._measurement.cached_tokens = usage.prompt_tokens_details.cached_tokens or 0

    def _read(self, payload: bytes) -> _Chunk | None:
        try:
            return _decode(payload)
        except (msgspec.DecodeError, UnicodeDecodeError):
            self._fail(f"HTTP {self._status}" if self._status >= 400 else "answer that is not as OpenAI's")
            return None

    def _refuses(self, chunk: _Chunk) -> bool:
        """Whether it is an error: OpenAI's, ms-swift's flat one, or whatever else came with such a status."""
        if self._status < 400 and chunk.error is None and chunk.object != "error":
            return False
        told = chunk.error if isinstance(chunk.error, dict) else {"code": chunk.code, "message": chunk.message}
        where = f"HTTP {self._status}" if self._status >= 400 else "error in the stream"
        self._fail(f"{where} {told.get('code') or told.get('type') or told.get('message') or ''}".strip())
        return True

    def _fail(self, kind: str) -> None:
        if self._measurement.error is None:
            self._measurement.error = kind[:MAX_KIND]
