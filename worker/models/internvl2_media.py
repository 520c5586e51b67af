"""Pictures and clips as InternVL2 sees them: square tiles of the whole picture, and a thumbnail."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from PIL import Image

from shared.job import ProcessorParams
from worker.engine.pieces import place
from worker.engine.prompt import Prompt
from worker.models.largest import Extent, black, media_prompt
from worker.models.refusal import check_wish, check_wishes
from worker.prepare.media import decode_frames, decode_image
from worker.prepare.reduction import num_at_rate, shrink

_TILES_AT_ONCE = 4
"""Enough to keep a GPU busy, few enough for running answers not to wait."""
_MEAN = np.array([0.485, 0.456, 0.406], dtype=np.float32)
_STD = np.array([0.229, 0.224, 0.225], dtype=np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tiler:
    """How one checkpoint wants its pictures cut."""

    size: int
    """Side of a tile in pixels."""
    max_tiles: int = 12
    """Most tiles of a picture, the thumbnail not counted; a frame of a clip has one."""
    has_thumbnail: bool = True
    num_segments: int = 8
    """Frames taken from a clip."""
    fps: float | None = None
    """Frames taken from each second of it, instead, if a request wishes it."""
    max_pixels: int | None = None
    """Pictures and frames that have more are shrunk first, if a request wishes it."""

    def adjusted(self, wishes: ProcessorParams) -> "Tiler":
        """Return the tiler with a request's wishes; raises InvalidRequest for those it can't honour."""
        check_wishes(wishes, {"max_num", "num_frames", "fps", "max_pixels"})
        check_wish("max_num", wishes.max_num, self.max_tiles, "tiles of a picture")
        return replace(
            self,
            max_tiles=wishes.max_num or self.max_tiles,
            num_segments=wishes.num_frames or self.num_segments,
            fps=wishes.fps,
            max_pixels=wishes.max_pixels,
        )

    def picture(self, content: bytes, param: str) -> torch.Tensor:
        """Return a picture's tiles, row by row, then the thumbnail, shape [tiles, 3, size, size]."""
        return self._tiles(shrink(decode_image(content, param), self.max_pixels), self.max_tiles)

    def frames(self, content: bytes, param: str) -> list[torch.Tensor]:
        """Return each chosen frame's only tile, shape [1, 3, size, size]."""
        frames = decode_frames(content, self._frame_indices, param)
        return [self._tiles(shrink(frame, self.max_pixels), max_tiles=1) for frame in frames]

    def _frame_indices(self, num_frames: int, rate: float) -> list[int]:
        """Return the middle of each segment, rounded as the authors round."""
        num_segments = self.num_segments if self.fps is None else num_at_rate(num_frames, rate, self.fps)
        length = (num_frames - 1) / num_segments
        return [int(length / 2 + round(length * segment)) for segment in range(num_segments)]

    def _tiles(self, picture: Image.Image, max_tiles: int) -> torch.Tensor:
        columns, rows = self._grid(*picture.size, max_tiles)
        size = self.size
        stretched = picture.resize((columns * size, rows * size))
        corners = [(column * size, row * size) for row in range(rows) for column in range(columns)]
        tiles = [stretched.crop((left, top, left + size, top + size)) for left, top in corners]
        if self.has_thumbnail and len(tiles) > 1:
            tiles.append(picture.resize((size, size)))
        return torch.stack([_normalize(tile) for tile in tiles])

    def _grid(self, width: int, height: int, max_tiles: int) -> tuple[int, int]:
        """Return the (columns, rows) whose shape is nearest to the picture's.

        Of grids equally near, a larger one is taken if the picture has more than half of its pixels.
        """
        sizes = range(1, max_tiles + 1)
        grids = sorted(((c, r) for c in sizes for r in sizes if c * r <= max_tiles), key=lambda grid: grid[0] * grid[1])
        best = grids[0]
        for columns, rows in grids[1:]:
            distance, least = (abs(width / height - c / r) for c, r in ((columns, rows), best))
            is_filled = width * height > 0.5 * self.size**2 * columns * rows
            if distance < least or (distance == least and is_filled):
                best = columns, rows
        return best


def _normalize(tile: Image.Image) -> torch.Tensor:
    """Return the tile's colours by ImageNet's mean and deviation, shape [3, size, size]."""
    scaled = np.asarray(tile, dtype=np.float32) / 255
    return torch.from_numpy(((scaled - _MEAN) / _STD).transpose(2, 0, 1).copy())


def see(media: Sequence[torch.Tensor], places: Sequence[int], tile_length: int) -> dict[str, Any]:
    """Return a prompt's media, each [tiles, 3, size, size]; tiles know nothing of each other, so a few are a piece."""
    if not media:
        return {}
    counts = [len(tiles) for medium in media for tiles in torch.split(medium, _TILES_AT_ONCE)]
    pixels = torch.cat([*media])
    few = torch.split(pixels, counts)
    lengths = [tile_length * count for count in counts]
    return {
        "features": {"pixel_values": pixels},
        "pieces": place("image", [{"pixel_values": tiles} for tiles in few], places, lengths),
    }


def largest_prompt(size: int, image: int, tile_length: int, extent: Extent) -> tuple[Prompt, ...]:
    """Return a prompt full of tiles; `image` is the id of their tokens."""
    few = min(_TILES_AT_ONCE, (extent.num_tokens - 1) // tile_length)

    def see_black(count: int) -> dict[str, torch.Tensor]:
        return {"pixel_values": black(count * few, 3, size, size)}

    return (media_prompt(extent, "image", image, few * tile_length, see_black, penalizes_prompt=False),)
