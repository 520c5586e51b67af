"""From a form to a file: what arrives goes to Redis piece by piece, and what breaks off leaves nothing there."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import msgspec
from starlette.exceptions import HTTPException

from api.batch.form import Field, Form
from api.batch.shelf import MAX_FILES, PIECE_BYTES, FileShelf, StoredFile
from api.schema.file import FileUpload, expiry_s
from api.schema.request import check_fields
from api.settings import ApiSettings
from shared.errors import InvalidRequest

FORM_BYTES = 2**16
"""What a form may hold beside the file."""
MAX_FIELD_BYTES = 1024
MAX_FILENAME = 255
MARGIN_S = 60.0
"""An upload whose gateway died is gone this long after its client would have been given up."""


@dataclass(slots=True)
class _Arriving:
    """What has arrived of a form so far."""

    filename: str | None = None
    buffer: bytearray = field(default_factory=bytearray)
    """The file's bytes that make no whole piece yet."""
    num_bytes: int = 0
    num_pieces: int = 0
    fields: dict[str, str] = field(default_factory=dict)


class Uploads:
    """Takes files in, as many and as large as the settings allow."""

    def __init__(self, shelf: FileShelf, settings: ApiSettings) -> None:
        self._shelf = shelf
        self._settings = settings
        self._ttl_s = settings.receive_timeout_s + MARGIN_S

    async def receive(
        self, owner: str, content_type: str, num_announced: int, chunks: AsyncIterator[bytes]
    ) -> StoredFile:
        """Store the file of a form with a body of `num_announced` bytes (0 if it isn't said), or raise a JobError."""
        form, most = Form(content_type), self._settings.max_file_bytes
        if num_announced > most + FORM_BYTES:
            raise self._too_large()
        async with AsyncExitStack() as stack:
            file = await self._shelf.open(owner, "", min(num_announced or most, most), self._ttl_s)
            stack.push_async_callback(self._shelf.delete, file)
            await self._check_room(file)
            arriving = await self._read(form, chunks, file)
            file = await self._complete(file, arriving)
            stack.pop_all()
            return file

    async def _read(self, form: Form, chunks: AsyncIterator[bytes], file: StoredFile) -> _Arriving:
        arriving = _Arriving()
        async for chunk in chunks:
            for part, content in form.feed(chunk):
                _take(arriving, part, content)
            if arriving.num_bytes > self._settings.max_file_bytes:
                raise self._too_large()
            while len(arriving.buffer) >= PIECE_BYTES:
                await self._put(arriving, file)
        if not form.is_complete:
            raise InvalidRequest("The form breaks off before its end; please send the file again.")
        while arriving.buffer:
            await self._put(arriving, file)
        return arriving

    async def _put(self, arriving: _Arriving, file: StoredFile) -> None:
        piece = bytes(arriving.buffer[:PIECE_BYTES])
        await self._shelf.put(file, arriving.num_pieces, piece, self._ttl_s)
        del arriving.buffer[:PIECE_BYTES]
        arriving.num_pieces += 1

    async def _complete(self, file: StoredFile, arriving: _Arriving) -> StoredFile:
        if arriving.filename is None:
            raise InvalidRequest("The form has no file: send one as the field file, with a file name.", param="file")
        if not arriving.num_bytes:
            raise InvalidRequest("The file is empty.", param="file")
        asked = check_fields(FileUpload, arriving.fields)
        if (asked.anchor is None) is not (asked.seconds is None):
            raise InvalidRequest("expires_after has an anchor and seconds.", param="expires_after")
        ttl_s = expiry_s(asked.seconds, self._settings.file_ttl_s, "expires_after[seconds]")
        return await self._shelf.complete(
            msgspec.structs.replace(
                file,
                purpose=asked.purpose,
                filename=arriving.filename,
                num_bytes=arriving.num_bytes,
                num_pieces=arriving.num_pieces,
                expires_s=file.created_s + ttl_s,
            )
        )

    async def _check_room(self, file: StoredFile) -> None:
        """Raise InvalidRequest if the file, which is on the shelf already, is one too many."""
        settings, files = self._settings, await self._shelf.of_all()
        own = [other for other in files if other.owner == file.owner]
        way_out = "delete files that are not needed any more"
        if len(own) > MAX_FILES:
            raise InvalidRequest(f"There may be {MAX_FILES} files of one API key; {way_out}.", param="file")
        if sum(other.num_bytes for other in own) > settings.max_key_file_bytes:
            raise InvalidRequest(
                f"The files of this API key would come to more than {settings.max_key_file_bytes} bytes "
                f"(--max_key_file_bytes); {way_out}.",
                param="file",
            )
        if sum(other.num_bytes for other in files) > settings.max_all_file_bytes:
            raise InvalidRequest(
                f"All files would come to more than {settings.max_all_file_bytes} bytes (--max_all_file_bytes); "
                f"{way_out}, or try again later.",
                param="file",
            )

    def _too_large(self) -> HTTPException:
        most = self._settings.max_file_bytes
        return HTTPException(413, f"a file may have {most} bytes (--max_file_bytes); divide it")


def _take(arriving: _Arriving, part: Field, content: bytes) -> None:
    if part.name == "file" and part.filename is not None:
        if not content and arriving.filename is not None:
            raise InvalidRequest("The form has two files; send one at a time.", param="file")
        if len(part.filename) > MAX_FILENAME:
            raise InvalidRequest(f"The file's name has more than {MAX_FILENAME} characters.", param="file")
        arriving.filename = part.filename
        arriving.buffer += content
        arriving.num_bytes += len(content)
        return
    if not content and part.name in arriving.fields:
        raise InvalidRequest(f"The form has the field {part.name[:100]!r} twice.", param=part.name[:100])
    value = arriving.fields.get(part.name, "") + content.decode(errors="replace")
    if len(part.name) + len(value) > MAX_FIELD_BYTES:
        raise InvalidRequest(
            f"The field {part.name[:100]!r} is longer than {MAX_FIELD_BYTES} bytes.", param=part.name[:100]
        )
    arriving.fields[part.name] = value
