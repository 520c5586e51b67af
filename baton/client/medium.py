"""One picture, clip or sound: what a script may name it by, and how it travels."""

import base64
import binascii
import hashlib
import mimetypes
import os
import re
from io import BytesIO
from pathlib import Path
from threading import Lock
from typing import Protocol, TypeAlias

_SAVING = Lock()
"""A picture reads its file when it is first used, and breaks if two threads do so at once."""

_DATA_URI = re.compile(r"data:[^,]{0,256};base64,", re.IGNORECASE)
_UNKNOWN_TYPE = "application/octet-stream"
_SUFFIXES = {
    b"\x89PNG": ".png",
    b"\xff\xd8\xff": ".jpg",
    b"GIF8": ".gif",
    b"fLaC": ".flac",
    b"OggS": ".ogg",
    b"ID3": ".mp3",
    b"\x1aE\xdf\xa3": ".webm",
}
_INNER_SUFFIXES = {b"WAVE": ".wav", b"WEBP": ".webp", b"ftyp": ".mp4"}
"""Of formats whose name stands behind a size."""


class Picture(Protocol):
    """What a PIL image can do; Pillow itself is not needed here."""

    def save(self, fp: BytesIO, format: str) -> None:  # noqa: A002 - Pillow's name
        """Write the picture."""


Medium: TypeAlias = str | bytes | os.PathLike[str] | Picture
"""A URL, base64, a local path, the bytes of a file, or a PIL image."""


def as_base64(medium: Medium) -> str:
    """Return the medium as bare base64; a text that is no existing file stays as it is."""
    if isinstance(medium, str) and not os.path.isfile(medium):
        return medium
    return base64.b64encode(_bytes_of(medium)).decode()


def as_uri(medium: Medium) -> str:
    """Return the medium as a data: URI; a text that is no existing file stays as it is."""
    if isinstance(medium, str) and not os.path.isfile(medium):
        return medium
    return f"data:{_type_of(medium)};base64,{base64.b64encode(_bytes_of(medium)).decode()}"


def as_file(medium: Medium, folder: Path) -> str:
    """Return the path of a file with the medium's bytes, named by the SHA-256 of their base64 and what they are.

    A URL or an existing file stays as it is. Raises ValueError for a text that is no base64 either.
    """
    text = as_base64(medium) if not isinstance(medium, str) else medium
    if text[:8].lower().startswith(("http://", "https://")) or os.path.isfile(text):
        return text
    payload = _DATA_URI.sub("", text, count=1)
    try:
        content = base64.b64decode(payload, validate=True)
    except binascii.Error as error:
        raise ValueError(f"{text[:40]!r} is neither a URL nor an existing file nor base64: {error}") from None
    path = folder / (hashlib.sha256(payload.encode()).hexdigest() + _suffix_of(content))
    path.write_bytes(content)
    return str(path)


def _bytes_of(medium: Medium) -> bytes:
    if isinstance(medium, bytes):
        return medium
    if isinstance(medium, str | os.PathLike):
        return Path(medium).read_bytes()
    buffer = BytesIO()
    with _SAVING:
        medium.save(buffer, format="PNG")
    return buffer.getvalue()


def _type_of(medium: Medium) -> str:
    if isinstance(medium, bytes):
        return _UNKNOWN_TYPE
    if isinstance(medium, str | os.PathLike):
        return mimetypes.guess_type(os.fspath(medium))[0] or _UNKNOWN_TYPE
    return "image/png"


def _suffix_of(content: bytes) -> str:
    for start, suffix in _SUFFIXES.items():
        if content.startswith(start):
            return suffix
    return _INNER_SUFFIXES.get(content[8:12]) or _INNER_SUFFIXES.get(content[4:8]) or ".bin"
