"""From the bytes of a response, or the frames of a stream, to answers; an error in them is raised. Pure."""

from typing import Any, Generic, TypeVar

import msgspec

from baton.client.answer import ChatCompletionStreamResponse, CompletionStreamResponse
from baton.client.course import Course
from baton.client.error import HTTPError

DONE = "[DONE]"
MAX_QUOTED = 200
"""Characters repeated of a body that nobody can read."""

_Answer = TypeVar("_Answer")
_Chunk = TypeVar("_Chunk", bound=ChatCompletionStreamResponse | CompletionStreamResponse)


def read_answer(content: bytes | str, shape: type[_Answer], status_code: int = 200) -> _Answer:
    """Return the body as an answer of this shape; null is the same as absent. Raises HTTPError."""
    fields = _fields(content)
    if not 200 <= status_code < 300 or "error" in fields or fields.get("object") == "error":
        raise _refusal(fields, content, status_code)
    try:
        return msgspec.convert(_without_nulls(fields), shape)
    except msgspec.ValidationError as error:
        raise HTTPError(f"The server's answer is not as OpenAI's: {error}", status_code=status_code) from None


class StreamReader(Generic[_Chunk]):
    """Turns the frames of one stream into chunks; the usage, a frame of its own, joins the last chunk."""

    def __init__(self, shape: type[_Chunk]) -> None:
        self._shape = shape
        self._held: list[_Chunk] = []
        self._answer_id = ""
        self.is_complete = False
        """Whether the stream has said that nothing follows."""

    def read(self, frame: str) -> list[_Chunk]:
        """Return the chunks that are complete with this frame; raise HTTPError if it tells one."""
        if not frame:
            return []
        if frame == DONE:
            self.is_complete = True
            return self._release()
        chunk = read_answer(frame, self._shape)
        self._answer_id = chunk.id
        if not chunk.choices:
            for held in self._held:
                held.usage = chunk.usage
            return []
        if any(choice.finish_reason for choice in chunk.choices):
            released, self._held = self._held, [chunk]
            return released
        return [*self._release(), chunk]

    def mark(self, course: Course, event_id: str | None) -> None:
        """Note on the answer's course how far it is read; a chunk that is held doesn't count."""
        if event_id and not self._held:
            course.note(self._answer_id, event_id)

    def rewind(self) -> None:
        """Go back to what was noted last: what is held comes again."""
        self._held = []

    def end(self) -> None:
        """Say that no frame follows; raise ConnectionError if the stream has not said so."""
        if not self.is_complete:
            raise ConnectionError("the answer broke off: the server closed the stream before its end")

    def _release(self) -> list[_Chunk]:
        released, self._held = self._held, []
        return released


def _fields(content: bytes | str) -> dict[str, Any]:
    try:
        fields = msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError):
        fields = None
    return fields if isinstance(fields, dict) else {"error": None}


def _refusal(fields: dict[str, Any], content: bytes | str, status_code: int) -> HTTPError:
    """Read OpenAI's error body, or the flat one of ms-swift; what is neither is quoted."""
    told = fields["error"] if isinstance(fields.get("error"), dict) else fields
    if isinstance(message := told.get("message"), str):
        return HTTPError(message, status_code=status_code, param=told.get("param"), code=told.get("code"))
    quoted = content if isinstance(content, str) else content.decode(errors="replace")
    return HTTPError(f"The server answered {status_code}: {quoted[:MAX_QUOTED]}", status_code=status_code)


def _without_nulls(value: Any) -> Any:
    match value:
        case dict():
            return {name: _without_nulls(v) for name, v in value.items() if v is not None}
        case list():
            return [_without_nulls(v) for v in value]
        case _:
            return value
