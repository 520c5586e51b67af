"""The seam between scheduling and the model: what the engine asks of whoever computes tokens."""

from typing import TYPE_CHECKING, Protocol

from worker.engine.sequence import Sequence
from worker.engine.token import Token

if TYPE_CHECKING:  # it brings torch
    from worker.engine.adapters import AdapterSlots


class Runner(Protocol):
    """Computes tokens for rows of running sequences; row i of the model's cache is the i-th running sequence.

    Called from the engine's thread only.
    """

    @property
    def adapters(self) -> "AdapterSlots | None":
        """Where adapters are put beside the base; None if the model takes none."""
        ...

    @property
    def vocab_size(self) -> int:
        """How many tokens there are to choose from; ids are smaller."""
        ...

    def prefill(self, sequence: Sequence, row: int) -> Token:
        """Read the sequence's tokens (prompt and answer so far) into a free row; return the next token."""
        ...

    def decode(self, sequences: list[Sequence]) -> list[Token]:
        """Feed each row its last token; return the next token of each."""
        ...

    def move(self, source: int, target: int) -> None:
        """Move one row's state into a hole."""
        ...
