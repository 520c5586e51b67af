"""Pictures and clips as MiniCPM-V sees them: an overview, and slices of pictures that are large."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from PIL import Image

from shared.job import MediaKind, ProcessorParams
from worker.engine.pieces import place
from worker.engine.prompt import Prompt
from worker.models.largest import Extent, black, media_prompt
from worker.models.refusal import check_wish, check_wishes
from worker.prepare.media import decode_frames, decode_image
from worker.prepare.reduction import shrink

MAX_FRAMES = 64
"""Most frames of a clip, unless a request wishes otherwise."""


@dataclass(frozen=True, slots=True)
class Cut:
    """One picture, or one frame of a clip, as tiles."""

    tiles: Sequence[torch.Tensor]
    """The overview, then the slices row by row, each of shape [3, height, width]."""
    grid: tuple[int, int] | None
    """(columns, rows) of the slices; None if there are none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slicer:
    """How one checkpoint wants its pictures cut."""

    scale: int
    """A tile has about this number of pixels, squared."""
    patch_size: int
    max_slices: int
    """Most slices of a picture; 1 is never slicing."""
    num_frames: int | None = None
    """Frames that a request wishes of a clip."""
    fps: float = 1.0
    """Frames taken from each second of a clip."""
    max_pixels: int | None = None
    """Pictures and frames that have more are shrunk first, if a request wishes it."""

    def adjusted(self, wishes: ProcessorParams, known: frozenset[str], default: int | None = None) -> "Slicer":
        """Return the slicer with a request's wishes; raises InvalidRequest for those it can't honour.

        `known` are the wishes that the model understands, `default` its slices where none are wished.
        """
        check_wishes(wishes, known)
        check_wish("max_slice_nums", wishes.max_slice_nums, self.max_slices, "slices of a picture")
        max_slices = wishes.max_slice_nums or min(default or self.max_slices, self.max_slices)
        return replace(
            self,
            max_slices=max_slices,
            num_frames=wishes.num_frames,
            fps=wishes.fps or self.fps,
            max_pixels=wishes.max_pixels,
        )

    def pictures(self, kind: MediaKind, content: bytes, param: str) -> list[Cut]:
        """Return a picture's tiles, or those of each frame of a clip that is seen."""
        if kind is MediaKind.IMAGE:
            return [self.cut(shrink(decode_image(content, param), self.max_pixels))]
        frames = decode_frames(content, self.choose_frames, param)
        return [self.cut(shrink(frame, self.max_pixels)) for frame in frames]

    def choose_frames(self, num_frames: int, rate: float) -> list[int]:
        """Return `fps` frames a second, thinned evenly to what is wished; more only if a request wishes more."""
        wanted = self.num_frames or MAX_FRAMES
        chosen = range(0, num_frames, max(1, round(rate / self.fps)))
        if self.num_frames is not None and len(chosen) < wanted:
            chosen = range(num_frames)
        if len(chosen) <= wanted:
            return list(chosen)
        gap = len(chosen) / wanted
        return [chosen[int(index * gap + gap / 2)] for index in range(wanted)]

    def cut(self, picture: Image.Image) -> Cut:
        """Return the tiles of one picture; a small one is enlarged to the size of a tile."""
        tiles = [_normalized(picture.resize(self._fit(*picture.size), Image.Resampling.BICUBIC))]
        if (grid := self._grid(*picture.size)) is None:
            return Cut(tiles, None)
        return Cut([*tiles, *self._slices(picture, *grid)], grid)

    def largest_cut(self) -> Cut:
        """Return the tiles of a picture that is sliced as often as one may be."""
        return self.cut(Image.new("RGB", (self.max_slices * self.scale, self.scale)))

    def _slices(self, picture: Image.Image, columns: int, rows: int) -> list[torch.Tensor]:
        cell = (max(round(side / count), 1) for side, count in zip(picture.size, (columns, rows), strict=True))
        width, height = self._fit(*cell)
        refined = picture.resize((width * columns, height * rows), Image.Resampling.BICUBIC)
        corners = [(column * width, row * height) for row in range(rows) for column in range(columns)]
        return [_normalized(refined.crop((left, top, left + width, top + height))) for left, top in corners]

    def _fit(self, width: float, height: float) -> tuple[int, int]:
        """Return the size of a tile of this shape: whole patches, about scale x scale pixels."""
        ratio = width / height
        fitting_height = int(self.scale / math.sqrt(ratio))
        return self._whole(int(fitting_height * ratio)), self._whole(fitting_height)

    def _whole(self, side: int) -> int:
        return max(round(side / self.patch_size) * self.patch_size, self.patch_size)

    def _grid(self, width: int, height: int) -> tuple[int, int] | None:
        """Return the (columns, rows) whose shape is nearest to the picture's; None if it fits one tile."""
        wanted = min(math.ceil(width * height / self.scale**2), self.max_slices)
        if wanted <= 1:
            return None
        counts = [count for count in (wanted - 1, wanted, wanted + 1) if 1 < count <= self.max_slices]
        grids = [
            (columns, count // columns) for count in counts for columns in range(1, count + 1) if count % columns == 0
        ]
        return min(grids, key=lambda grid: abs(math.log(width / height) - math.log(grid[0] / grid[1])))


@dataclass(frozen=True, slots=True)
class Layout:
    """How one checkpoint's network takes the tiles of a prompt."""

    placeholder: int
    """The id of their tokens."""
    tile_length: int
    """Tokens a tile stands for."""
    patch_size: int
    sees_padding: bool
    """Whether tiles see what pads them to their companions' size, as in 2.5."""

    def see(self, token_ids: Sequence[int], pictures: Sequence[Sequence[torch.Tensor]]) -> dict[str, Any]:
        """Return a prompt's media; each picture is a piece, which may have to know its companions' size."""
        if not pictures:
            return {}
        tiles = [tile for picture in pictures for tile in picture]
        strips = torch.cat([strip(tile, self.patch_size) for tile in tiles], dim=-1)
        grids = torch.tensor([[side // self.patch_size for side in tile.shape[1:]] for tile in tiles])
        whole = self._features(strips, grids, grids.prod(-1).max())
        lengths = [sum(tile.shape[1] * tile.shape[2] // self.patch_size for tile in picture) for picture in pictures]
        apart = zip(
            torch.split(strips, lengths, dim=-1),
            torch.split(grids, [len(picture) for picture in pictures]),
            strict=True,
        )
        places = [index for index, token_id in enumerate(token_ids) if token_id == self.placeholder]
        given = [whole | {"pixel_values": own, "tile_grids": shapes} for own, shapes in apart]
        num_tokens = [self.tile_length * len(picture) for picture in pictures]
        return {"features": whole, "pieces": place("image", given, places, num_tokens)}

    def largest_prompt(self, slicer: Slicer, extent: Extent) -> tuple[Prompt, ...]:
        """Return a prompt full of pictures with as many slices as one may have, or as the prompt has room for."""
        tiles = slicer.largest_cut().tiles[: (extent.num_tokens - 1) // self.tile_length]
        grids = torch.tensor([[side // self.patch_size for side in tile.shape[1:]] for tile in tiles])

        def see_black(count: int) -> dict[str, Any]:
            num_patches = grids.prod(-1)
            strips = black(3, self.patch_size, count * int(num_patches.sum()) * self.patch_size)
            return self._features(strips, grids.repeat(count, 1), num_patches.max())

        length = self.tile_length * len(tiles)
        return (media_prompt(extent, "image", self.placeholder, length, see_black, penalizes_prompt=False),)

    def _features(self, strips: torch.Tensor, grids: torch.Tensor, longest: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"pixel_values": strips, "tile_grids": grids} | ({"longest": longest} if self.sees_padding else {})


def strip(tile: torch.Tensor, patch_size: int) -> torch.Tensor:
    """Lay a tile's patches side by side, row by row; shape [3, patch_size, patches * patch_size]."""
    rows, columns = (side // patch_size for side in tile.shape[1:])
    patches = tile.reshape(3, rows, patch_size, columns, patch_size)
    return patches.permute(0, 2, 1, 3, 4).flatten(2)


def _normalized(tile: Image.Image) -> torch.Tensor:
    scaled = np.asarray(tile, dtype=np.float32) / 255
    return torch.from_numpy(((scaled - 0.5) / 0.5).transpose(2, 0, 1).copy())
