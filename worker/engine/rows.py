"""What lies in which row of the cache: running sequences first, behind them what may be of use again.

It knows tokens by what tells them apart, and nothing of tensors.
"""

from collections.abc import Hashable
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:  # a worker starts to load with as little as it can
    import numpy as np


class Mover(Protocol):
    """Who carries rows; the runner."""

    def copy(self, source: int, target: int, num_tokens: int) -> None:
        """Copy a row's first tokens over another row."""
        ...

    def swap(self, row: int, other: int) -> None:
        """Let two rows change places."""
        ...


@dataclass(frozen=True, slots=True)
class Content:
    """Tokens that lie in a row, from its beginning."""

    space: Hashable
    """What has to be equal for any token to be: the adapter, and what holds for whole rows."""
    tokens: "np.ndarray"  # [properties, tokens], as `pieces.identify` gives them

    def __len__(self) -> int:
        num_tokens: int = self.tokens.shape[1]
        return num_tokens

    def first(self, num_tokens: int) -> "Content":
        """Return the beginning."""
        return Content(self.space, self.tokens[:, :num_tokens])

    def shared(self, other: "Content") -> int:
        """Return how many tokens both begin with."""
        length = min(len(self), len(other))
        if self.space != other.space or len(self.tokens) != len(other.tokens):
            return 0
        differs = (self.tokens[:, :length] != other.tokens[:, :length]).any(axis=0)
        return int(differs.argmax()) if differs.any() else length


class Rows:
    """Rows 0 to n-1 run or are about to; created with the engine, which tells it what becomes of each row."""

    def __init__(self, mover: Mover, num_rows: int) -> None:
        self._mover = mover
        self._contents: list[Content | None] = [None] * num_rows
        self._used = [0] * num_rows
        self._clock = count(1)
        self.num_running = 0

    @property
    def has_room(self) -> bool:
        """Whether a row is left for one more sequence."""
        return self.num_running < len(self._contents)

    def admit(self, wanted: Content | None) -> int:
        """Make the first row behind the running ones ready to be read into; return how many tokens are there already.

        None finds nothing.
        """
        row = self.num_running
        source, length = (row, 0) if wanted is None else self._find(wanted)
        victim = self._victim(source, length)
        self._vacate(row, source, victim, length)
        self.keep(row, wanted.first(length) if wanted is not None else None)
        return length

    def num_shared(self, wanted: Content) -> int:
        """Return how many tokens of these the row has that begins with most of them."""
        return max(0 if content is None else content.shared(wanted) for content in self._contents)

    def keep(self, row: int, content: Content | None) -> None:
        """Note what lies in a row now; None if nothing that may be used again."""
        self._contents[row] = content
        self._used[row] = next(self._clock)

    def start(self, row: int) -> None:
        """Let the row that was read into run; it becomes the last running one."""
        self.swap(row, self.num_running)
        self.num_running += 1

    def end(self, row: int, content: Content | None) -> None:
        """Let a running row rest; the last running one takes its place."""
        self.keep(row, content)
        self.num_running -= 1
        self.swap(row, self.num_running)

    def swap(self, row: int, other: int) -> None:
        """Let two rows change places."""
        if row != other:
            self._mover.swap(row, other)
            contents, used = self._contents, self._used
            contents[row], contents[other] = contents[other], contents[row]
            used[row], used[other] = used[other], used[row]

    def _find(self, wanted: Content) -> tuple[int, int]:
        """Return the row that begins with most of what is wanted, and how much that is."""
        shared = [0 if content is None else content.shared(wanted) for content in self._contents]
        source = shared.index(max(shared))
        if not shared[source]:
            return self.num_running, 0
        self._used[source] = next(self._clock)
        return source, shared[source]

    def _victim(self, source: int, length: int) -> int:
        """Return the row to be given up: the source if not much of it is lost, else one that is empty or the oldest."""
        candidates = range(self.num_running, len(self._contents))
        oldest = min(candidates, key=lambda row: (self._contents[row] is not None, self._used[row], row))
        num_kept = len(self._contents[source] or ()) if length else 0
        most_lost = 0 if self._contents[oldest] is None else length
        return source if source in candidates and length and num_kept - length <= most_lost else oldest

    def _vacate(self, row: int, source: int, victim: int, length: int) -> None:
        """Bring what is shared into the row, and what lay there into the victim's."""
        if victim == source:
            self.swap(row, source)
            return
        lying = self._contents[row]
        if victim != row and lying is not None:
            self._mover.copy(row, victim, len(lying))
            self._contents[victim], self._used[victim] = lying, self._used[row]
        if source != row and length:
            self._mover.copy(source, row, length)
