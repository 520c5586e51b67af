"""Scenes: up to five shapes that neither touch nor share a cell of the picture, many scenes at once.

Lengths are in sides of the picture; x grows to the right, y downwards.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]
Integers = npt.NDArray[np.integer[Any]]
Booleans = npt.NDArray[np.bool_]

MAX_SHAPES = 5
GRID = 4
"""Cells to a side; each is what one token shows, and holds the centre of one shape at most."""
KINDS = ("circle", "square", "triangle", "cross")
COLOURS = ("red", "green", "blue", "yellow", "purple", "orange")
SMALL_RADII, LARGE_RADII = (0.075, 0.1), (0.135, 0.17)
_GAP = 0.03
_MAX_TRIES = 20
_EXTENTS = np.array([(1, 1, 1, 1), (0.88, 0.88, 0.88, 0.88), (0.95, 1, 0.95, 0.75), (1, 1, 1, 1)])
"""How far each kind reaches to the left, top, right and bottom, in radii."""


@dataclass(frozen=True, slots=True)
class Scenes:
    """Arrays of shape [scenes, MAX_SHAPES], centres [scenes, MAX_SHAPES, 2]."""

    kinds: Integers
    colours: Integers
    radii: Floats
    is_large: Booleans
    centres: Floats
    is_there: Booleans

    def __len__(self) -> int:
        return len(self.kinds)

    @property
    def boxes(self) -> Floats:
        """Left, top, right and bottom of each shape."""
        reach = _EXTENTS[self.kinds] * self.radii[..., None] * (-1, -1, 1, 1)
        return np.tile(self.centres, 2) + reach

    @property
    def cells(self) -> Integers:
        """The cell of each centre, counted row by row."""
        columns, rows = np.moveaxis((self.centres * GRID).astype(int).clip(0, GRID - 1), -1, 0)
        cells: Integers = rows * GRID + columns
        return cells


def compose(*shapes: tuple[str, str, tuple[float, float], float]) -> Scenes:
    """Return one scene of what is listed: colour, kind, centre and radius of each shape."""
    rows = np.arange(MAX_SHAPES)
    listed = [*shapes, *[("red", "circle", (0.5, 0.5), 0.1)] * (MAX_SHAPES - len(shapes))]
    colours, kinds, centres, radii = zip(*listed, strict=True)
    return Scenes(
        kinds=np.array([[KINDS.index(kind) for kind in kinds]]),
        colours=np.array([[COLOURS.index(colour) for colour in colours]]),
        radii=np.array([radii]),
        is_large=np.array([radii]) > SMALL_RADII[1],
        centres=np.array([centres]),
        is_there=(rows < len(shapes))[None],
    )


def sample_scenes(rng: np.random.Generator, num_scenes: int, most: int = MAX_SHAPES) -> Scenes:
    """Draw scenes of one to `most` shapes."""
    shape = (num_scenes, MAX_SHAPES)
    is_large = rng.random(shape) < 0.45
    radii = np.where(is_large, rng.uniform(*LARGE_RADII, shape), rng.uniform(*SMALL_RADII, shape))
    kinds, colours = rng.integers(len(KINDS), size=shape), rng.integers(len(COLOURS), size=shape)
    is_wanted = np.arange(MAX_SHAPES) < rng.integers(1, most + 1, (num_scenes, 1))
    centres, is_there = _place(rng, radii, is_wanted)
    return Scenes(kinds, colours, radii, is_large, centres, is_there)


def _place(rng: np.random.Generator, radii: Floats, is_wanted: Booleans) -> tuple[Floats, Booleans]:
    """Return centres, and which of the wanted shapes found a place."""
    centres, is_there = np.zeros((*radii.shape, 2)), np.zeros_like(is_wanted)
    for slot in range(MAX_SHAPES):
        pending = np.flatnonzero(is_wanted[:, slot])
        for _ in range(_MAX_TRIES):
            reach = radii[pending, slot, None] + 0.01
            centres[pending, slot] = reach + rng.random((len(pending), 2)) * (1 - 2 * reach)
            collides = _collides(centres[pending], radii[pending], is_there[pending], slot)
            is_there[pending[~collides], slot] = True
            pending = pending[collides]
    return centres, is_there


def _collides(centres: Floats, radii: Floats, is_there: Booleans, slot: int) -> Booleans:
    """Return in which scenes this shape touches one that is there, or shares its cell."""
    own, cells = centres[:, slot, None], (centres * GRID).astype(int)
    shares = (cells == cells[:, slot, None]).all(-1)
    touches = np.abs(centres - own).max(-1) < radii + radii[:, slot, None] + _GAP
    collides: Booleans = ((shares | touches) & is_there).any(-1)
    return collides
