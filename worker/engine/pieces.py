"""Media of a prompt in pieces that are encoded, remembered and told apart each by itself."""

from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from typing import Any

import numpy as np
import torch

from worker.engine.prompt import Piece, Prompt

Features = Mapping[str, Any]


def place(kind: str, features: Iterable[Features], places: Sequence[int], lengths: Sequence[int]) -> tuple[Piece, ...]:
    """Return pieces of one kind, which take the given places of the prompt in turn, as many as each one's length.

    What is too short to have a place is no piece.
    """
    pieces, begin = [], 0
    for given, length in zip(features, lengths, strict=True):
        taken = np.array(places[begin : begin + length], np.int64)
        pieces += [Piece(kind, taken, given, digest(given))] if length else []
        begin += length
    return tuple(pieces)


def inseparable(features: Features, num_tokens: int) -> tuple[Piece, ...]:
    """Return media of which nothing is known as one piece, of which no token is shared with other media.

    The model's whole forward encodes them.
    """
    return (Piece("", np.arange(num_tokens), {}, digest(features)),) if features else ()


def digest(features: Features) -> bytes:
    """Return a hash of names, types, shapes and bytes."""
    told = sha256()
    for name, feature in sorted(features.items()):
        if isinstance(feature, torch.Tensor):
            told.update(f"{name} {feature.dtype} {[*feature.shape]}".encode())
            told.update(feature.contiguous().flatten().view(torch.uint8).numpy().data)
        else:
            told.update(f"{name} {feature!r}".encode())
    return told.digest()


def identify(prompt: Prompt, answer: Sequence[int]) -> np.ndarray:
    """Return what tells each token of prompt and answer from others, shape [properties, tokens]."""
    shown = np.zeros(len(prompt.token_ids), np.int64)
    for piece in prompt.pieces:
        shown[piece.places] = np.resize(np.frombuffer(piece.digest, np.int64), len(piece.places))
    features = [np.asarray(feature, np.int64)[0] for feature in prompt.token_features.values()]
    properties = np.stack([np.array(prompt.token_ids, np.int64), shown, *features])
    answered = np.repeat(properties[:, -1:], len(answer), axis=1)
    answered[0], answered[1] = answer, 0
    return np.concatenate([properties, answered], axis=1)
