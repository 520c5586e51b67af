"""A multipart form as it arrives: its fields' names and bytes, in their order, nothing of it kept."""

from dataclasses import dataclass

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from shared.errors import InvalidRequest

_FORM = b"multipart/form-data"


@dataclass(frozen=True, slots=True)
class Field:
    """One part of the form, as its head names it."""

    name: str
    filename: str | None
    """None where it is no file."""


class Form:
    """Fed with the body piece by piece."""

    def __init__(self, content_type: str) -> None:
        """Raise InvalidRequest where the header announces no form."""
        kind, options = parse_options_header(content_type.encode("latin-1"))
        boundary = options.get(b"boundary")
        if kind.lower() != _FORM or not boundary:
            raise InvalidRequest("The body must be a multipart/form-data form, as OpenAI's clients send it.")
        self.is_complete = False
        self._name, self._value = b"", b""
        self._disposition = b""
        self._field = Field("", None)
        self._arrived: list[tuple[Field, bytes]] = []
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_header_field": self._add_name,
                "on_header_value": self._add_value,
                "on_header_end": self._end_header,
                "on_headers_finished": self._name_field,
                "on_part_data": self._add_bytes,
                "on_end": self._end,
            },
        )

    def feed(self, chunk: bytes) -> list[tuple[Field, bytes]]:
        """Return the fields and the bytes of them that the chunk brings; a field begins with no bytes.

        Raises InvalidRequest where this is no form.
        """
        try:
            self._parser.write(chunk)
        except MultipartParseError as error:
            raise InvalidRequest(f"The body is no valid multipart/form-data form: {error}.") from None
        arrived, self._arrived = self._arrived, []
        return arrived

    def _begin(self) -> None:
        self._disposition = b""

    def _add_name(self, source: bytes, start: int, end: int) -> None:
        self._name += source[start:end]

    def _add_value(self, source: bytes, start: int, end: int) -> None:
        self._value += source[start:end]

    def _end_header(self) -> None:
        if self._name.lower() == b"content-disposition":
            self._disposition = self._value
        self._name, self._value = b"", b""

    def _name_field(self) -> None:
        _, options = parse_options_header(self._disposition)
        filename = options.get(b"filename")
        self._field = Field(
            options.get(b"name", b"").decode(errors="replace"),
            None if filename is None else filename.decode(errors="replace"),
        )
        self._arrived.append((self._field, b""))

    def _add_bytes(self, source: bytes, start: int, end: int) -> None:
        self._arrived.append((self._field, source[start:end]))

    def _end(self) -> None:
        self.is_complete = True
