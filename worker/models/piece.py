"""What one piece of a vocabulary stands for, in bytes; decoders tell only whole texts."""

import re
from typing import Any

from transformers.convert_slow_tokenizer import bytes_to_unicode

_BYTES = {letter: byte for byte, letter in bytes_to_unicode().items()}
_HEX = re.compile(r"<0x([0-9A-F]{2})>")


def spells_bytes(backend: Any) -> bool:
    """Whether the pieces of a tokenizer of the tokenizers library spell bytes as letters, as GPT-2's do."""
    return backend.decoder is not None and b"ByteLevel" in backend.decoder.__getstate__()


def bytes_of(piece: str, *, spells: bool) -> bytes:
    """Return what the piece adds to a text; sentencepiece writes a blank as ▁ and a lone byte as <0xE4>."""
    if spells and all(letter in _BYTES for letter in piece):
        return bytes(_BYTES[letter] for letter in piece)
    if lone := _HEX.fullmatch(piece):
        return bytes.fromhex(lone[1])
    return piece.replace("▁", " ").encode()
