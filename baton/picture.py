"""A small picture to ask about, drawn here: a red disc on white."""

import struct
import zlib

SIZE = 64
RADIUS = 24
WHITE, RED = bytes((255, 255, 255)), bytes((220, 30, 40))


def red_disc() -> bytes:
    """Return the picture as a PNG of two colours."""
    rows = b"".join(b"\0" + _row(y) for y in range(SIZE))
    header = struct.pack(">IIBBBBB", SIZE, SIZE, 1, 3, 0, 0, 0)  # one bit a pixel, into a palette
    chunks = ((b"IHDR", header), (b"PLTE", WHITE + RED), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, body) for kind, body in chunks)


def _row(y: int) -> bytes:
    centre = (SIZE - 1) / 2
    bits = "".join("1" if (x - centre) ** 2 + (y - centre) ** 2 <= RADIUS**2 else "0" for x in range(SIZE))
    return int(bits, 2).to_bytes(SIZE // 8, "big")


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
