"""One token of an answer as it was chosen."""

from typing import NamedTuple


class Scored(NamedTuple):
    """A token and its log-probability."""

    id: int
    logprob: float


class Token(NamedTuple):
    """The chosen token, with what was asked about its place."""

    id: int
    logprob: float | None = None
    """By the model's own logits, before anything the request asks for changes them; None if nobody asked."""
    top: tuple[Scored, ...] = ()
    """The likeliest tokens of the place, likeliest first, by the same logits."""
