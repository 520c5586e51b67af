"""The seam for constrained decoding: whoever knows a grammar says which tokens may come next."""

from collections.abc import Iterable
from typing import Protocol


class Constraint(Protocol):
    """Follows one sequence; created with it, and told of every token, those of an earlier attempt included."""

    def begin(self) -> None:
        """Start to work out the mask, beside whatever the model computes; it needn't be called."""
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


def begin_masks(constraints: Iterable[Constraint | None]) -> None:
    """Let all of them start to work out their masks."""
    for constraint in constraints:
        if constraint is not None:
            constraint.begin()
