"""A decode step between its launch and the arrival of its tokens."""

from dataclasses import dataclass
from typing import Protocol

from worker.engine.sequence import Sequence
from worker.engine.token import Token


class Flight(Protocol):
    """A step under way."""

    @property
    def sequences(self) -> list[Sequence]:
        """Whose tokens it brings, row by row."""
        ...

    def collect(self) -> list[Token]:
        """Wait for the tokens and return them, row by row; called at most once."""
        ...


@dataclass(frozen=True, slots=True)
class Landed:
    """A step whose tokens were there at once; implements `Flight`."""

    sequences: list[Sequence]
    tokens: list[Token]

    def collect(self) -> list[Token]:
        """Return the tokens."""
        return self.tokens
