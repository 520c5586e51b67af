"""What the engine generates from: token ids, the features they stand for, and how to read the answer back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:  # a worker starts to load with as little as it can
    import numpy as np


class Tokenizer(Protocol):
    """The half of a tokenizer the engine needs."""

    def decode(self, token_ids: Sequence[int]) -> str:
        """Return the text of these tokens; what isn't (yet) valid UTF-8 ends in U+FFFD."""
        ...

    def token_bytes(self, token_id: int) -> bytes:
        """Return one token by itself, as it stands within a text; a control token is spelled out."""
        ...

    def answer_bytes(self, token_id: int) -> bytes | None:
        """Return what the token adds to the text of a constrained answer; None if it may not stand for text."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """As much of a prompt's media as the model encodes by itself, whatever stands beside it; made by `pieces`."""

    kind: str
    """`image`, `video` or `audio`: which of the model's encoders reads it."""
    places: "np.ndarray"
    """Indices of its tokens in the prompt, one for each row that the encoder makes of it."""
    features: Mapping[str, Any]
    """What the encoder takes; empty if it can be read by the model's whole forward only."""
    digest: bytes
    """SHA-256 of the features: equal digests are equal pieces, prepared in the same way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """One request, ready for the model."""

    token_ids: tuple[int, ...]
    """Placeholders of media already repeated once per feature row."""
    tokenizer: Tokenizer
    """Reads the answer's tokens."""
    stop_token_ids: frozenset[int] = frozenset()
    """Any of these ends the answer and isn't part of it."""
    stop: tuple[str, ...] = ()
    """The answer ends before any of these strings as well, for models that end their turns in plain text."""
    strips_answer: bool = False
    """Whether the model's own chat code strips white space around the answer."""
    rewrites: tuple[tuple[str, str], ...] = ()
    """What the model's own chat code replaces in its answers, in this order."""
    features: Mapping[str, Any] = field(default_factory=dict)
    """What the model's forward takes beside the ids at prefill, as `pixel_values`."""
    token_features: Mapping[str, Any] = field(default_factory=dict)
    """Of that what has one column a token, shape [1, tokens]; the answer's tokens get what the prompt's last has."""
    penalizes_prompt: bool = True
    """Whether the repetition penalty counts the prompt's tokens; where the authors' code gives embeddings to
    `generate()`, it can't."""
    row_features: Mapping[str, float] = field(default_factory=dict)
    """What it takes at every step, prefill and decode, one number a row; every prompt of a model has the same ones."""
    pieces: tuple[Piece, ...] = ()
    """The media among the features, in the prompt's order."""
    media_tokens: Mapping[str, int] = field(default_factory=dict)
    """How many tokens stand for media of each kind, where the pieces don't tell."""

    @property
    def is_shareable(self) -> bool:
        """Whether its tokens can be told from another prompt's: nothing is known of media that aren't in pieces."""
        return bool(self.pieces) or not self.features

    @property
    def feature_bytes(self) -> int:
        """Memory that its features take; what stands among them twice is there once."""
        groups = (self.features, *(piece.features for piece in self.pieces))
        given = (feature for features in groups for feature in features.values())
        storages = (tensor.untyped_storage() for tensor in given if hasattr(tensor, "untyped_storage"))
        return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())

    def num_tokens_of(self, *kinds: str) -> int:
        """Return how many tokens stand for media of these kinds."""
        if self.media_tokens:
            return sum(self.media_tokens.get(kind, 0) for kind in kinds)
        return sum(len(piece.places) for piece in self.pieces if piece.kind in kinds)
