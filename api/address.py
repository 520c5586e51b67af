"""What a media address may be: an http(s) URL, a data: URI or bare base64. Files are `api.directory`'s."""

import binascii
import re
from urllib.parse import unquote_to_bytes

from api.media import MediaSource
from shared.errors import InvalidMedia

_DATA_URI = re.compile(r"data:(?P<type>[^,]{0,256}),", re.IGNORECASE)
_BASE64 = re.compile(r"[A-Za-z0-9+/\s]++={0,2}\s*+")
_MIN_BASE64_LENGTH = 32
"""Shorter than any picture; what is shorter is a word or a path."""


def is_url(address: str) -> bool:
    """Whether the bytes have to be fetched."""
    return address[:8].lower().startswith(("http://", "https://"))


def decode(source: MediaSource) -> bytes:
    """Return the bytes that the address itself contains, or raise InvalidMedia."""
    content = _contained(source)
    if not content:
        raise InvalidMedia(f"The {source.kind} is empty.", param=source.param)
    return content


def _contained(source: MediaSource) -> bytes:
    if match := _DATA_URI.match(source.address):
        payload = source.address[match.end() :]
        if match["type"].lower().endswith(";base64"):
            return _from_base64(payload, source)
        return unquote_to_bytes(payload)
    if len(source.address) < _MIN_BASE64_LENGTH or not _BASE64.fullmatch(source.address):
        raise InvalidMedia(
            f"The {source.kind} is neither an http(s) URL nor a data: URI nor base64, nor a file that this server may"
            " read; send the file's content as data:<type>;base64,<content>.",
            param=source.param,
        )
    return _from_base64(source.address, source)


def _from_base64(text: str, source: MediaSource) -> bytes:
    try:
        return binascii.a2b_base64("".join(text.split()).encode(), strict_mode=True)
    except ValueError as error:
        raise InvalidMedia(f"The {source.kind} is not valid base64: {error}.", param=source.param) from None
