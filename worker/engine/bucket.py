"""Shapes of steps: few enough to record each of them, close enough together that little is computed for nobody."""

from typing import NamedTuple

LEAST_WIDTH = 256


class Bucket(NamedTuple):
    """What a recorded step is recorded for."""

    rows: int
    width: int
    is_adapted: bool
    """Whether any row may take an adapter."""


def enough_rows(count: int, limit: int) -> int:
    """Return the next power of two, or the limit."""
    return min(1 << (count - 1).bit_length(), limit)


def enough_width(width: int, limit: int) -> int:
    """Return the next of 256, 384, 512, 768, 1024 …, or the limit."""
    power = max(1 << (width - 1).bit_length(), LEAST_WIDTH)
    between = power // 4 * 3
    return min(between if width <= between and between > LEAST_WIDTH else power, limit)
