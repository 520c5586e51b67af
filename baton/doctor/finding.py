"""What one look found."""

from dataclasses import dataclass
from enum import IntEnum


class Colour(IntEnum):
    """How bad it is; the worst one is the whole's."""

    GREEN = 0
    YELLOW = 1
    """It works, not as well as it could or not for long."""
    RED = 2
    """It does not work, or loses requests."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the table."""

    area: str
    name: str
    colour: Colour
    fact: str
    advice: str = ""
    """What to do about it."""


def graded(area: str, name: str, value: float, fact: str, advice: str, limits: tuple[float, float]) -> Finding:
    """Return a finding that is yellow from the first limit on and red from the second."""
    colour = Colour((value >= limits[0]) + (value >= limits[1]))
    return Finding(area, name, colour, fact, advice if colour else "")
