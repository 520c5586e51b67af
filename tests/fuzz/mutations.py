"""Damage: what a file may look like after a bad disk, a bad network, or somebody who means harm."""

import random
import struct
from collections.abc import Callable, Iterator

from shared.job import MediaKind
from tests.fuzz.seeds import seeds

_EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
_HEADER_BYTES = 96


def corpus(num_files: int, seed: int = 0) -> Iterator[tuple[MediaKind, str, bytes]]:
    """Yield so many damaged files, the same ones for the same seed: every format, every kind of damage in turn."""
    rng = random.Random(seed)
    for number in range(num_files):
        kind, name, content = seeds()[number % len(seeds())]
        damage = _DAMAGES[number // len(seeds()) % len(_DAMAGES)]
        yield kind, f"{number} {name} {damage.__name__.strip('_')}", damage(content, rng)


def _flips(content: bytes, rng: random.Random) -> bytes:
    damaged = bytearray(content)
    for _ in range(rng.choice((1, 3, 10, 100))):
        damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def _flipped_header(content: bytes, rng: random.Random) -> bytes:
    return _flips(content[:_HEADER_BYTES], rng) + content[_HEADER_BYTES:]


def _cut(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(len(content))]


def _extreme_number(content: bytes, rng: random.Random) -> bytes:
    """A length, a size or a count becomes huge, nothing or negative: most of them stand in the first bytes."""
    form, size = rng.choice(((">H", 2), ("<H", 2), (">I", 4), ("<I", 4)))
    most = (1 << 8 * size) - 1
    at = rng.randrange(max(1, min(len(content), _HEADER_BYTES * rng.choice((1, 1, 4))) - size))
    return content[:at] + struct.pack(form, rng.choice(_EXTREMES) & most) + content[at + size :]


def _extreme_anywhere(content: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(max(1, len(content) - 4))
    return content[:at] + struct.pack(">I", rng.choice(_EXTREMES)) + content[at + 4 :]


def _spliced(content: bytes, rng: random.Random) -> bytes:
    """The head of one format on the body of another."""
    _, _, other = rng.choice(seeds())
    at = rng.choice((4, 8, 12, 16, 32, rng.randrange(1, len(content))))
    return content[:at] + other[at:]


def _nested(content: bytes, rng: random.Random) -> bytes:
    """A file in the middle of a file."""
    _, _, other = rng.choice(seeds())
    at = rng.randrange(len(content))
    return content[:at] + other + content[at:]


def _repeated(content: bytes, rng: random.Random) -> bytes:
    """A piece over and over, as tables and boxes that never end."""
    start = rng.randrange(len(content))
    piece = content[start : start + rng.choice((1, 4, 16, 64))]
    return content[:start] + piece * rng.choice((10, 1000)) + content[start:]


def _zeroed(content: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(content))
    end = min(len(content), start + rng.choice((4, 64, 1024)))
    return content[:start] + bytes(end - start) + content[end:]


def _swapped(content: bytes, rng: random.Random) -> bytes:
    """Two pieces change places."""
    first, second = sorted(rng.sample(range(len(content)), 2))
    return content[:first] + content[second:] + content[first:second]


_DAMAGES: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    _flips,
    _flipped_header,
    _cut,
    _extreme_number,
    _extreme_anywhere,
    _spliced,
    _nested,
    _repeated,
    _zeroed,
    _swapped,
)
