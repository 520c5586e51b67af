"""A code in which a cell of a picture says what it shows: what eyes learn to write and speech learns to read.

Both can then learn at the same time and apart, before they learn together.
"""

import numpy as np
import numpy.typing as npt

from tools.demo.language import CHINESE, ENGLISH
from tools.demo.scene import COLOURS, GRID, KINDS, Floats, Scenes
from tools.demo.speaker import STEP

_STEPS = np.linspace(0, 1, 21)
_LENGTHS = 1, len(KINDS), len(COLOURS), 4 * len(_STEPS), 2, 3
"""Of presence, kind, colour, box, size and measures."""
_WEIGHTS = np.repeat([1.0, 1.5, 1.5, 1.0, 1.5, 1.5], _LENGTHS)
_MEASURE = np.array([2.0, 2.0, 8.0])
"""Brings centres and radii, less what is usual, to about one at most."""
_USUAL = np.array([0.5, 0.5, 0.12])
_SCALE = 0.4


class Code:
    """Orthogonal directions of the language model's space, one for each thing to say."""

    def __init__(self, width: int) -> None:
        rng = np.random.default_rng(7)
        draws = [rng.standard_normal((width, size)) for size in (sum(_LENGTHS[:4]), sum(_LENGTHS[4:]))]
        self._directions = (np.linalg.qr(np.concatenate(draws, axis=1))[0].T * _SCALE).astype(np.float32)

    def write(self, scenes: Scenes, jitter: Floats | float = 0.0) -> npt.NDArray[np.float32]:
        """Return what each cell shows, zeros if nothing, shape [scenes, cells, width]; boxes are off by `jitter`.

        A box is told by what each edge is close to, for numbers to be read off; a measure is a plain number, for two
        shapes to be compared.
        """
        coordinates = _closeness(scenes.boxes + jitter)
        measures = np.concatenate([scenes.centres, scenes.radii[..., None]], axis=-1)
        said = np.concatenate(
            [
                np.ones((*scenes.kinds.shape, 1)),
                np.eye(len(KINDS))[scenes.kinds],
                np.eye(len(COLOURS))[scenes.colours],
                coordinates.reshape(*scenes.kinds.shape, -1),
                np.eye(2)[scenes.is_large.astype(int)],
                (measures - _USUAL) * _MEASURE,
            ],
            axis=-1,
        )
        there = np.nonzero(scenes.is_there)
        cells = np.zeros((len(scenes), GRID * GRID, self._directions.shape[1]), dtype=np.float32)
        cells[there[0], scenes.cells[there]] = (said[there] * _WEIGHTS).astype(np.float32) @ self._directions
        return cells

    def read(self, cells: npt.NDArray[np.float32]) -> tuple[Floats, Floats, Floats, Floats]:
        """Return evidence for presence, kinds, colours and the four coordinates' steps."""
        said = cells @ self._directions.T / _SCALE**2
        presence, kinds, colours, coordinates, _ = np.split(said, np.cumsum(_LENGTHS[:4]), axis=-1)
        return presence[..., 0], kinds, colours, coordinates.reshape(*said.shape[:-1], 4, len(_STEPS))

    def words(self) -> dict[str, npt.NDArray[np.float32]]:
        """Return the directions of what words name, for words to begin with."""
        named: dict[str, npt.NDArray[np.float32]] = {}
        for language in (ENGLISH, CHINESE):
            for number, words in enumerate(zip(language.kinds, language.plurals, strict=True)):
                named |= dict.fromkeys(words, self._directions[1 + number])
            for number, word in enumerate(language.colours):
                named[word] = self._directions[1 + len(KINDS) + number]
        for number in range(0, 1001, STEP):
            steps = np.tile(_closeness(np.array(number / 1000)), 4)
            direction = steps @ self._directions[sum(_LENGTHS[:3]) : sum(_LENGTHS[:4])] / 2
            named[str(number)] = direction.astype(np.float32)
        return named


def _closeness(coordinates: Floats) -> Floats:
    closeness: Floats = np.exp(-(((coordinates[..., None] - _STEPS) / 0.05) ** 2))
    return closeness
