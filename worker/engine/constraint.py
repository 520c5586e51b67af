"""The seam for constrained decoding: whoever knows a grammar says which tokens may come next."""

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:  # the sequence that keeps one is created without torch
    import torch


class Constraint(Protocol):
    """Follows one sequence; created with it, and told of every token, those of an earlier attempt included."""

    def mask(self) -> "torch.Tensor":
        """Return which tokens may come next, shape [vocab], bool; at least one may.

        On the CPU or the logits' device; tokens past its end may not come.
        """
        ...

    def accept(self, token_id: int) -> None:
        """Take the token that came."""
        ...
