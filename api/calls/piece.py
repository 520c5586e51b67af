"""What a reader makes of an answer's text, in the order in which it is said."""

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Words:
    """Text for the person who asked."""

    text: str


@dataclass(frozen=True, slots=True)
class CallBegun:
    """A function that may be called is called."""

    name: str


@dataclass(frozen=True, slots=True)
class Arguments:
    """The next part of what the latest call is given."""

    text: str


Piece: TypeAlias = Words | CallBegun | Arguments


def num_undecided(text: str, mark: str) -> int:
    """Return the length of the end of the text that may begin a mark, with the white space before it."""
    longest = min(len(mark) - 1, len(text))
    size = next((size for size in range(longest, 0, -1) if text.endswith(mark[:size])), 0)
    return len(text) - len(text[: len(text) - size].rstrip())
