"""The seam for constrained decoding: whoever knows a grammar says which tokens may come next."""

from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Protocol

PATIENCE_S = 0.005
"""How long a step waits for masks that are mostly there sooner; for the same one no second time."""


class Constraint(Protocol):
    """Follows one sequence; created with it, and told of every token, those of an earlier attempt included."""

    def begin(self) -> Future[bytes]:
        """Start to work out the mask in another thread, unless that is under way."""
        ...

    @property
    def is_quick(self) -> bool:
        """Whether the mask is worth waiting for: begun within `PATIENCE_S`, in which the last one was there."""
        ...

    def mask(self) -> bytes:
        """Return which tokens may come next, a bit each, the lowest of a byte first; tokens past its end may not.

        At least one may, or it is broken.
        """
        ...

    def accept(self, token_id: int) -> None:
        """Take the token that came."""
        ...

    @property
    def is_complete(self) -> bool:
        """Whether nothing may come but the end."""
        ...

    @property
    def is_broken(self) -> bool:
        """Whether it can't be followed any further, so that the answer has to be given up."""
        ...


def late_rows(constraints: Sequence[Constraint | None]) -> set[int]:
    """Return the rows whose masks aren't there yet, having waited a little for those that are mostly quick.

    Where all rows are late, it is waited for the first of them just as long, and for none in vain.
    """
    masks = {row: constraint.begin() for row, constraint in enumerate(constraints) if constraint is not None}
    if not masks:
        return set()
    wait(_quick(constraints, masks), PATIENCE_S)
    if len(masks) == len(constraints):
        wait(masks.values(), PATIENCE_S, FIRST_COMPLETED)
    return {row for row, mask in masks.items() if not mask.done()}


def _quick(constraints: Sequence[Constraint | None], masks: Mapping[int, Future[bytes]]) -> list[Future[bytes]]:
    return [masks[row] for row, constraint in enumerate(constraints) if constraint is not None and constraint.is_quick]
