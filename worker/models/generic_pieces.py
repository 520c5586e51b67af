"""Media as a checkpoint's processor leaves them, taken apart again where it can be told what belongs together."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from worker.engine.pieces import inseparable, place
from worker.engine.prompt import Piece

Features = Mapping[str, Any]

_PIXELS = {"image": "pixel_values", "video": "pixel_values_videos"}
_GRIDS = {"image": "image_grid_thw", "video": "video_grid_thw"}


def find_pieces(features: Features, token_ids: Sequence[int], config: Any) -> tuple[Piece, ...]:
    """Return the media in pieces: of models with grids each picture or clip, of others each of equal tiles.

    Whatever else there is makes all of it one piece, which only equal media share.
    """
    kinds = [kind for kind, name in _PIXELS.items() if name in features]
    found = [_of_kind(kind, features, token_ids, config) for kind in kinds]
    known = {name for kind in kinds for name in (_PIXELS[kind], _GRIDS[kind])}
    if None in found or features.keys() - known:
        return inseparable(features, len(token_ids))
    return tuple(piece for pieces in found for piece in pieces or ())


def count_media(token_ids: Sequence[int], config: Any) -> dict[str, int]:
    """Return how many tokens stand for media of each kind."""
    placeholders = {kind: getattr(config, f"{kind}_token_id", None) for kind in ("image", "video", "audio")}
    return {kind: token_ids.count(token_id) for kind, token_id in placeholders.items() if token_id is not None}


def _of_kind(kind: str, features: Features, token_ids: Sequence[int], config: Any) -> tuple[Piece, ...] | None:
    placeholder = getattr(config, f"{kind}_token_id", None)
    places = [index for index, token_id in enumerate(token_ids) if token_id == placeholder]
    pixels, grid = features[_PIXELS[kind]], features.get(_GRIDS[kind])
    if grid is None:
        given = [{_PIXELS[kind]: tile} for tile in pixels.split(1)]
        return _placed(kind, given, places, [1] * len(given)) if pixels.ndim == 4 else None  # tiles, channels, pixels
    sizes = grid.prod(-1).tolist()
    parts = zip(torch.split(pixels, sizes), grid.split(1), strict=True)
    return _placed(kind, [{_PIXELS[kind]: part, _GRIDS[kind]: shape} for part, shape in parts], places, sizes)


def _placed(
    kind: str, given: Sequence[Features], places: Sequence[int], sizes: Sequence[int]
) -> tuple[Piece, ...] | None:
    """Return pieces that take their share of the places; None if it comes out even for no one."""
    lengths = [size * len(places) // sum(sizes) for size in sizes]
    is_even = all(size * len(places) % sum(sizes) == 0 for size in sizes)
    return place(kind, given, places, lengths) if is_even and all(lengths) else None
