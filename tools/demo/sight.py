"""The first stage: eyes learn to write what each cell of a picture shows."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import nn

from tools.demo.concepts import Code
from tools.demo.drawing import draw, sample_looks
from tools.demo.network import IMAGE_SIZE, WIDTH, look, to_pixels
from tools.demo.scene import sample_scenes

_NUM_PICTURES = 32
_EMPTY = 0.3
"""Weight of a cell that shows nothing; most cells do."""


class Sight:
    """Trains vision tower and projector; implements `Stage`."""

    name = "sight"
    rate = 2e-3

    def __init__(self, network: Any) -> None:
        self._network = network
        self._code = Code(WIDTH)

    def parameters(self) -> Iterable[nn.Parameter]:
        """Return what is trained."""
        model = self._network.model
        return [*model.vision_tower.parameters(), *model.multi_modal_projector.parameters()]

    def loss(self, rng: np.random.Generator, progress: float) -> torch.Tensor:
        """Return how far a batch of pictures is from being written as it should be."""
        scenes = sample_scenes(rng, _NUM_PICTURES)
        pictures = draw(scenes, sample_looks(rng, _NUM_PICTURES), IMAGE_SIZE, rng)
        return misreading(look(self._network, to_pixels(pictures)), torch.from_numpy(self._code.write(scenes)))


def misreading(seen: torch.Tensor, shown: torch.Tensor) -> torch.Tensor:
    """Return the squared error for each shape, shapes [pictures, cells, width]."""
    shows = shown.abs().sum(-1) > 0
    errors = (seen - shown).square().sum(-1)
    return (errors * torch.where(shows, 1.0, _EMPTY)).sum() / shows.sum()
