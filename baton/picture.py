"""A small picture to ask about, drawn here: a red circle and a blue square on white."""

import struct
import zlib

SIZE = 64
WHITE, RED, BLUE = bytes((255, 255, 255)), bytes((220, 40, 40)), bytes((45, 85, 225))
_CIRCLE, _SQUARE, _REACH = (20, 22), (45, 43), 9
"""Centres, and how far both go to each side, in pixels."""


def circle_and_square() -> bytes:
    """Return the picture as a PNG of three colours."""
    rows = b"".join(b"\0" + _row(y) for y in range(SIZE))
    header = struct.pack(">IIBBBBB", SIZE, SIZE, 2, 3, 0, 0, 0)  # two bits a pixel, into a palette
    chunks = ((b"IHDR", header), (b"PLTE", WHITE + RED + BLUE), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, body) for kind, body in chunks)


def _row(y: int) -> bytes:
    pixels = 0
    for x in range(SIZE):
        pixels = pixels << 2 | _colour(x, y)
    return pixels.to_bytes(SIZE // 4, "big")


def _colour(x: int, y: int) -> int:
    """Return the pixel's place in the palette."""
    if (x - _CIRCLE[0]) ** 2 + (y - _CIRCLE[1]) ** 2 <= _REACH**2:
        return 1
    return 2 if max(abs(x - _SQUARE[0]), abs(y - _SQUARE[1])) <= _REACH - 1 else 0


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
