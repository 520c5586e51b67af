"""Amounts as a person writes them: a length or a range of lengths, a picture's size, limits in milliseconds."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeAlias

from pydantic import BeforeValidator
from pydantic_settings import NoDecode

LIMITED = {"ttft": "ttft", "itl": "itl", "tpot": "itl", "e2e": "e2e", "e2el": "e2e"}
"""What a limit may be set on, as the field spells it → our name."""


@dataclass(frozen=True, slots=True)
class Span:
    """A number of things: always the same, or any from `least` to `most` alike."""

    least: int
    most: int

    def draw(self, draws: random.Random) -> int:
        """Return one of them."""
        return draws.randint(self.least, self.most)

    def __str__(self) -> str:
        return str(self.least) if self.least == self.most else f"{self.least}-{self.most}"


@dataclass(frozen=True, slots=True)
class Size:
    """Width and height in pixels."""

    width: int
    height: int

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"


def _span(said: Any) -> Span:
    if isinstance(said, Span):
        return said
    least, separator, most = str(said).partition("-")
    if not (least.isdecimal() and (most.isdecimal() or not separator)):
        raise ValueError(f"{said!r} is neither a number nor a range like 32-128")
    span = Span(int(least), int(most or least))
    if not 0 < span.least <= span.most:
        raise ValueError(f"{said!r} is empty; a range begins at 1 or above and ends no lower than it begins")
    return span


def _size(said: Any) -> Size:
    if isinstance(said, Size):
        return said
    width, _, height = str(said).partition("x")
    if not (width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise ValueError(f"{said!r} is not a size like 448x336")
    return Size(int(width), int(height))


def _limits(said: Any) -> dict[str, float]:
    if isinstance(said, dict):
        return {_limited(name): _milliseconds(str(limit)) for name, limit in said.items()}
    parts: Sequence[Any] = said.split() if isinstance(said, str) else said
    pairs = [str(part).replace("=", ":").partition(":") for part in parts]
    return {_limited(name): _milliseconds(limit) for name, _, limit in pairs}


def _limited(name: str) -> str:
    if name not in LIMITED:
        raise ValueError(f"a limit can be set on {', '.join(LIMITED)}, not on {name!r}")
    return LIMITED[name]


def _milliseconds(said: str) -> float:
    try:
        limit_ms = float(said)
    except ValueError:
        raise ValueError(f"{said!r} is not a number of milliseconds") from None
    if limit_ms <= 0:
        raise ValueError(f"a limit is above 0 ms, not {said}")
    return limit_ms


Count: TypeAlias = Annotated[Span, NoDecode, BeforeValidator(_span)]
Pixels: TypeAlias = Annotated[Size, NoDecode, BeforeValidator(_size)]
Limits: TypeAlias = Annotated[dict[str, float], NoDecode, BeforeValidator(_limits)]
"""Milliseconds by what they limit, as `ttft:500 itl:50`."""
