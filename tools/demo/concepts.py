"""A code in which a cell of a picture says what it shows: what eyes learn to write and speech learns to read.

Both can then learn at the same time and apart, before they learn together.
"""

import numpy as np
import numpy.typing as npt

from tools.demo.language import CHINESE, ENGLISH
from tools.demo.scene import COLOURS, GRID, KINDS, Floats, Scenes
from tools.demo.speaker import STEP

_STEPS = np.linspace(0, 1, 21)
_SIZE = 1 + len(KINDS) + len(COLOURS) + 4 * len(_STEPS)
_WEIGHTS = np.repeat([1.0, 1.5, 1.5, 1.0], [1, len(KINDS), len(COLOURS), 4 * len(_STEPS)])
_SCALE = 0.4


class Code:
    """Orthogonal directions of the language model's space, one for each thing to say."""

    def __init__(self, width: int) -> None:
        draws = np.random.default_rng(7).standard_normal((width, _SIZE))
        self._directions = (np.linalg.qr(draws)[0].T * _SCALE).astype(np.float32)

    def write(self, scenes: Scenes, jitter: Floats | float = 0.0) -> npt.NDArray[np.float32]:
        """Return what each cell shows, zeros if nothing, shape [scenes, cells, width]; boxes are off by `jitter`."""
        coordinates = _closeness(scenes.boxes + jitter)
        said = np.concatenate(
            [
                np.ones((*scenes.kinds.shape, 1)),
                np.eye(len(KINDS))[scenes.kinds],
                np.eye(len(COLOURS))[scenes.colours],
                coordinates.reshape(*scenes.kinds.shape, -1),
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
        ends = np.cumsum([1, len(KINDS), len(COLOURS)])
        presence, kinds, colours, coordinates = np.split(said, ends, axis=-1)
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
            direction = steps @ self._directions[1 + len(KINDS) + len(COLOURS) :] / 2
            named[str(number)] = direction.astype(np.float32)
        return named


def _closeness(coordinates: Floats) -> Floats:
    closeness: Floats = np.exp(-(((coordinates[..., None] - _STEPS) / 0.05) ** 2))
    return closeness
