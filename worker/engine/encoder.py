"""A model's towers: media become rows of the prompt, piece by piece, and what is known isn't encoded again."""

from collections import OrderedDict
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from inspect import signature
from typing import Any

import torch

from worker.engine.prompt import Piece
from worker.engine.runner import MediaStats

KINDS = ("image", "video", "audio")
_PIXELS = frozenset({"pixel_values", "pixel_values_videos", "input_features"})
"""What a forward doesn't take beside what has been encoded; it still needs sizes and places."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """What a tower made of one piece, in the container that its model expects."""

    container: type
    is_listed: bool
    """Whether rows are wanted as a list of tensors, one a piece, and not as one tensor."""
    rows: torch.Tensor  # [rows, hidden]
    deepstack: tuple[torch.Tensor, ...]
    """Rows for deeper layers, one of [rows, hidden] each."""

    @property
    def size_bytes(self) -> int:
        """Memory it takes."""
        return sum(rows.nbytes for rows in (self.rows, *self.deepstack))

    def blank(self, num_rows: int) -> "Encoded":
        """Return rows of nothing, for places that nobody looks at."""
        layers = (self.rows, *self.deepstack)
        rows, *deepstack = (layer.new_zeros(1).expand(num_rows, layer.shape[1]) for layer in layers)
        return Encoded(self.container, self.is_listed, rows, tuple(deepstack))


class Encoder:
    """Created with the runner; remembers at most so many bytes, and forgets first what wasn't used for longest."""

    def __init__(self, model: Any, max_bytes: int) -> None:
        self._model = model
        self._max_bytes = max_bytes
        self._known: OrderedDict[Hashable, Encoded] = OrderedDict()
        self._samples: dict[str, Encoded] = {}
        self.stats = MediaStats()
        takes_encoded = "mm_encoder_outputs" in signature(model.forward).parameters
        self._towers = {kind: tower for kind in KINDS if takes_encoded and (tower := self._tower(kind)) is not None}

    @property
    def has_towers(self) -> bool:
        """Whether any media can be encoded by themselves."""
        return bool(self._towers)

    def takes(self, piece: Piece) -> bool:
        """Whether a piece can be encoded by itself."""
        return piece.kind in self._towers and bool(piece.features)

    def recall(self, piece: Piece, space: Hashable) -> Encoded | None:
        """Return what was made of an equal piece; `space` is what has to be equal beside it."""
        if (encoded := self._known.get((space, piece.digest))) is not None:
            self._known.move_to_end((space, piece.digest))
            self._count(hits=1)
        return encoded

    def encode(self, piece: Piece, space: Hashable) -> Encoded:
        """Run the tower; raises ValueError if it doesn't make as many rows as the piece has places."""
        tower = self._towers[piece.kind]
        given = {name: _placed(feature, self._model.device) for name, feature in piece.features.items()}
        encoded = _flat(tower(**given))
        if len(encoded.rows) != len(piece.places):
            raise ValueError(f"a piece with {len(piece.places)} places was encoded as {len(encoded.rows)} rows")
        self._samples[piece.kind] = encoded.blank(1)
        self._count(misses=1)
        self._remember((space, piece.digest), encoded)
        return encoded

    def blank(self, piece: Piece) -> Encoded | None:
        """Return a stand-in for a piece that nobody looks at; None if its like was never encoded."""
        sample = self._samples.get(piece.kind)
        return None if sample is None else sample.blank(len(piece.places))

    def inputs(self, features: Mapping[str, Any], encoded: Iterable[tuple[Piece, Encoded]]) -> dict[str, Any]:
        """Return what the forward takes instead of features whose pieces were encoded, in the prompt's order."""
        by_kind: dict[str, list[Encoded]] = {}
        taken: set[str] = set()
        for piece, rows in encoded:
            by_kind.setdefault(piece.kind, []).append(rows)
            taken |= _PIXELS & piece.features.keys()
        inputs = {name: _placed(given, self._model.device) for name, given in features.items() if name not in taken}
        if by_kind:
            inputs["mm_encoder_outputs"] = {kind: _joined(pieces) for kind, pieces in by_kind.items()}
        return inputs

    def _tower(self, kind: str) -> Any:
        return getattr(self._model, f"get_{kind}_features", None)

    def _remember(self, key: Hashable, encoded: Encoded) -> None:
        self._known[key] = encoded
        self._count(size_bytes=encoded.size_bytes)
        while self.stats.size_bytes > self._max_bytes:
            _, forgotten = self._known.popitem(last=False)
            self._count(size_bytes=-forgotten.size_bytes)

    def _count(self, hits: int = 0, misses: int = 0, size_bytes: int = 0) -> None:
        past = self.stats
        self.stats = MediaStats(past.hits + hits, past.misses + misses, past.size_bytes + size_bytes)


def _placed(feature: Any, device: torch.device) -> Any:
    return feature.to(device) if isinstance(feature, torch.Tensor) else feature


def _flat(output: Any) -> Encoded:
    """Return a tower's output as rows, whatever it made of them."""
    deepstack = getattr(output, "deepstack_features", None) or ()
    is_listed = not isinstance(output.pooler_output, torch.Tensor)
    return Encoded(type(output), is_listed, _rows(output.pooler_output), tuple(_rows(layer) for layer in deepstack))


def _rows(features: Any) -> torch.Tensor:
    listed = [features] if isinstance(features, torch.Tensor) else features
    return torch.cat([feature.reshape(-1, feature.shape[-1]) for feature in listed])


def _joined(pieces: list[Encoded]) -> Any:
    """Return the output that the model's forward expects for all pieces together."""
    first = pieces[0]

    def contained(rows: Iterable[torch.Tensor]) -> Any:
        return [*rows] if first.is_listed else torch.cat([*rows])[None]

    fields: dict[str, Any] = {"pooler_output": contained(piece.rows for piece in pieces)}
    if first.deepstack:
        fields["deepstack_features"] = [
            contained(layer) for layer in zip(*(piece.deepstack for piece in pieces), strict=True)
        ]
    return first.container(**fields)
