"""What the engine generates from: token ids, the features they stand for, and how to read the answer back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol


class Tokenizer(Protocol):
    """The half of a tokenizer the engine needs."""

    def decode(self, token_ids: Sequence[int]) -> str:
        """Return the text of these tokens; what isn't (yet) valid UTF-8 ends in U+FFFD."""
        ...

    def token_bytes(self, token_id: int) -> bytes:
        """Return one token by itself, as it stands within a text; a control token is spelled out."""
        ...


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
