"""The seam between scheduling and the model: what the engine asks of whoever computes tokens."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from worker.engine.flight import Flight
from worker.engine.rows import Content
from worker.engine.sequence import Sequence

if TYPE_CHECKING:  # it brings torch
    from worker.engine.adapters import AdapterSlots


@dataclass(frozen=True, slots=True)
class MediaStats:
    """What remembering encoded media has saved so far."""

    hits: int = 0
    """Pieces that weren't encoded again."""
    misses: int = 0
    size_bytes: int = 0


@dataclass(frozen=True, slots=True)
class MediaRoom:
    """What prepared media may take of the host's memory, until their requests end."""

    total_bytes: int
    """Those of all requests."""
    most_bytes: int
    """Those of one."""


class Prefill(Protocol):
    """A sequence on its way into its row; dropped at any time without a word."""

    num_tokens: int
    """Tokens that lie in the row."""

    @property
    def rest(self) -> int:
        """How many tokens are left that can be read beside other prompts'; 0 while anything else comes first."""
        ...

    @property
    def is_complete(self) -> bool:
        """Whether everything but the last token lies in the row."""
        ...

    def advance(self, budget: int) -> int:
        """Read at most so many tokens, or encode one piece of media; return how many tokens' worth it was."""
        ...


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

    @property
    def media_stats(self) -> MediaStats:
        """What remembering encoded media has saved so far."""
        ...

    @property
    def media_room(self) -> MediaRoom | None:
        """What prepared media may take; None if nobody found out."""
        ...

    def content(self, sequence: Sequence) -> Content | None:
        """Return the sequence's tokens by what tells them apart; None if no other row may begin with them."""
        ...

    def prefill(self, sequence: Sequence, row: int, num_cached: int) -> Prefill:
        """Begin to read the sequence's tokens but the last one into a row, which holds the first of them already."""
        ...

    def read(self, prefills: list[Prefill]) -> None:
        """Read what is left of prompts that lie in neighbouring rows, in their order, at once."""
        ...

    @property
    def overlaps(self) -> bool:
        """Whether a step may be launched while the tokens that it is fed are still under way."""
        ...

    def launch(self, sequences: list[Sequence], before: Flight | None) -> Flight:
        """Feed each row its last token, those of sequences that fly out of the step before, which hasn't landed yet."""
        ...

    def copy(self, source: int, target: int, num_tokens: int) -> None:
        """Copy a row's first tokens over another row."""
        ...

    def swap(self, row: int, other: int) -> None:
        """Let two rows change places."""
        ...
