"""The largest prompts that a model lets through: rows full of the dearest media it takes.

Each family says what its dearest medium is; nothing here is decoded or drawn, because a tower takes as much for black.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from worker.engine.pool import zeros
from worker.engine.prompt import Piece, Prompt

_WORD = 1
_BLACK = bytes(32)
"""Stands for a hash: all pieces of a prompt are equal."""


@dataclass(frozen=True, slots=True)
class Extent:
    """How much one request may hold."""

    num_tokens: int
    feature_bytes: int
    """Of media as the model sees them; one piece may be more."""


Largest = Callable[[Extent], Sequence[Prompt]]
"""Returns prompts of exactly so many tokens: one for each kind of media, or one of text alone."""


class Mute:
    """Implements `Tokenizer` for prompts whose answers nobody reads."""

    def decode(self, token_ids: Sequence[int]) -> str:
        """Say nothing."""
        return ""

    def token_bytes(self, token_id: int) -> bytes:
        """Say nothing."""
        return b""

    def answer_bytes(self, token_id: int) -> bytes | None:
        """Say nothing."""
        return b""


def media_prompt(
    extent: Extent, kind: str, placeholder: int, length: int, see: Callable[[int], Mapping[str, Any]], **more: Any
) -> Prompt:
    """Return a prompt that begins with as many pieces of media as fit, of `length` tokens each, and ends in text.

    `see` returns the features of so many pieces.
    """
    each = see(1) if 0 < length < extent.num_tokens else {}
    most = max(1, extent.feature_bytes // num_bytes(each)) if each else 0
    count = min(most, (extent.num_tokens - 1) // length) if each else 0
    filler = 0 if placeholder == _WORD else _WORD
    places = np.arange(count * length)
    return Prompt(
        token_ids=(placeholder,) * len(places) + (filler,) * (extent.num_tokens - len(places)),
        tokenizer=Mute(),
        features=see(count) if count else {},
        pieces=tuple(Piece(kind, taken, each, _BLACK) for taken in places.reshape(count, -1)) if count else (),
        **more,
    )


def black(*shape: int) -> torch.Tensor:
    """Return pixels or sounds of nothing; they take no memory as long as nobody writes them."""
    return zeros(shape, torch.float32, torch.device("cpu"))


def num_bytes(features: Mapping[str, Any]) -> int:
    """Return what features take."""
    return sum(feature.nbytes for feature in features.values() if isinstance(feature, torch.Tensor))
