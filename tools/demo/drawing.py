"""Draws scenes, with smooth edges, on plain, shaded and noisy grounds."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tools.demo.scene import MAX_SHAPES, Floats, Integers, Scenes

Pictures = npt.NDArray[np.uint8]

_PALETTE = np.array(
    [(220, 40, 40), (40, 160, 60), (45, 85, 225), (245, 215, 45), (150, 60, 185), (250, 140, 30)], dtype=np.float32
)
_WINDOW = 0.375
"""Side of the square in which a shape is drawn."""


@dataclass(frozen=True, slots=True)
class Looks:
    """What of a picture nobody is asked about; one row for each scene."""

    grounds: Floats
    """Colour at the top left and at the bottom right, shape [scenes, 2, 3]."""
    noise: Floats
    """Width of the ground's noise."""
    tints: Floats
    """What is added to each shape's colour, shape [scenes, MAX_SHAPES, 3]."""

    def repeated(self, times: int) -> "Looks":
        """Return looks for pictures that come in groups of this size."""
        return Looks(*(np.repeat(rows, times, axis=0) for rows in (self.grounds, self.noise, self.tints)))


def sample_looks(rng: np.random.Generator, num_scenes: int) -> Looks:
    """Draw grounds, most of them bright, and slight deviations of the colours."""
    brightness = np.where(
        rng.random(num_scenes) < 0.8, rng.uniform(200, 255, num_scenes), rng.uniform(0, 60, num_scenes)
    )
    grounds = brightness[:, None, None] + rng.normal(0, 6, (num_scenes, 1, 3))
    shading = (rng.random((num_scenes, 1, 1)) < 0.4) * rng.normal(0, 14, (num_scenes, 2, 1))
    noise = (rng.random(num_scenes) < 0.5) * rng.uniform(0, 45, num_scenes)
    return Looks(grounds + shading, noise, rng.normal(0, 8, (num_scenes, MAX_SHAPES, 3)))


def draw(scenes: Scenes, looks: Looks, size: int, rng: np.random.Generator) -> Pictures:
    """Return pictures, shape [scenes, size, size, 3]; `rng` is for the noise alone."""
    margin = int(_WINDOW * size)
    canvas = np.pad(_grounds(looks, size, rng), ((0, 0), (margin, margin), (margin, margin), (0, 0)))
    for slot in range(MAX_SHAPES):
        there = np.flatnonzero(scenes.is_there[:, slot])
        corners = np.floor((scenes.centres[there, slot] - _WINDOW / 2) * size).astype(int)
        offsets = np.arange(margin)
        x, y = (corners[:, axis, None] + offsets for axis in (0, 1))
        cover = _cover(scenes, there, slot, x, y, size)
        colour = (_PALETTE[scenes.colours[there, slot]] + looks.tints[there, slot]).astype(np.float32)
        window = there[:, None, None], (y + margin)[:, :, None], (x + margin)[:, None, :]
        canvas[window] += cover[..., None] * (colour[:, None, None] - canvas[window])
    return canvas[:, margin:-margin, margin:-margin].clip(0, 255).round().astype(np.uint8)


def _grounds(looks: Looks, size: int, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    slope = np.linspace(0, 0.5, size, dtype=np.float32)
    share = (slope[:, None] + slope)[None, ..., None]
    first, last = (looks.grounds[:, end, None, None].astype(np.float32) for end in (0, 1))
    grounds = first + (last - first) * share
    noisy = np.flatnonzero(looks.noise)
    noise = rng.random((len(noisy), size, size, 3), dtype=np.float32) - 0.5
    grounds[noisy] += noise * looks.noise[noisy, None, None, None].astype(np.float32)
    return grounds


def _cover(scenes: Scenes, there: Integers, slot: int, x: Integers, y: Integers, size: int) -> npt.NDArray[np.float32]:
    """Return how much of each pixel a shape covers, shape [scenes, rows, columns]."""
    centre, radius = scenes.centres[there, slot] * size, scenes.radii[there, slot, None, None] * size
    right = ((x + 0.5) - centre[:, :1])[:, None, :] + np.zeros_like(y)[:, :, None]
    down = ((y + 0.5) - centre[:, 1:])[:, :, None] + np.zeros_like(x)[:, None, :]
    kinds, distances = scenes.kinds[there, slot], np.empty_like(right)
    for kind, distance in enumerate((_circle, _square, _triangle, _cross)):
        of_kind = kinds == kind
        distances[of_kind] = distance(right[of_kind], down[of_kind], radius[of_kind])
    cover: npt.NDArray[np.float32] = (0.5 - distances).clip(0, 1).astype(np.float32)
    return cover


def _circle(right: Floats, down: Floats, radius: Floats) -> Floats:
    distance: Floats = np.hypot(right, down) - radius
    return distance


def _square(right: Floats, down: Floats, radius: Floats) -> Floats:
    distance: Floats = np.maximum(np.abs(right), np.abs(down)) - 0.88 * radius
    return distance


def _triangle(right: Floats, down: Floats, radius: Floats) -> Floats:
    sides = (1.75 * np.abs(right) - 0.95 * (down + radius)) / np.hypot(1.75, 0.95)
    distance: Floats = np.maximum(sides, down - 0.75 * radius)
    return distance


def _cross(right: Floats, down: Floats, radius: Floats) -> Floats:
    x, y, width = np.abs(right), np.abs(down), 0.36 * radius
    distance: Floats = np.minimum(np.maximum(x - width, y - radius), np.maximum(x - radius, y - width))
    return distance
