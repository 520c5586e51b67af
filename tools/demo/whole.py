"""The last stage: eyes and speech learn together, from pixels to answers."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import nn

from tools.demo.concepts import Code
from tools.demo.dialogue import NUM_SCENES, Topic, sample_dialogues
from tools.demo.drawing import draw, sample_looks
from tools.demo.lesson import Teacher
from tools.demo.network import IMAGE_SIZE, WIDTH, look, to_pixels
from tools.demo.sight import misreading
from tools.demo.speech import NUM_TURNS, choose_topic, unlikelihood

_NUM_DIALOGUES = {Topic.PICTURE: 8, Topic.PAIR: 6, Topic.CLIP: 3}
_SIZES = (IMAGE_SIZE, IMAGE_SIZE, 96, 160)
"""Pictures are drawn at one of these and shrunk, as those of users are."""
_READING = 0.3
"""Weight of the cells' own errors."""


class Whole:
    """Trains everything; implements `Stage`."""

    name = "whole"
    rate = 5e-4

    def __init__(self, network: Any, teacher: Teacher) -> None:
        self._network = network
        self._teacher = teacher
        self._code = Code(WIDTH)

    def parameters(self) -> Iterable[nn.Parameter]:
        """Return what is trained."""
        parameters: Iterable[nn.Parameter] = self._network.parameters()
        return parameters

    def loss(self, rng: np.random.Generator, progress: float) -> torch.Tensor:
        """Return how unlikely the answers of a batch of dialogues are, and how far its pictures are from being read."""
        topic = choose_topic(rng, still=False)
        dialogues = sample_dialogues(rng, topic, _NUM_DIALOGUES[topic], NUM_TURNS)
        lesson = self._teacher.lesson(rng, dialogues)
        looks = sample_looks(rng, len(lesson.token_ids)).repeated(NUM_SCENES[topic])
        pictures = draw(dialogues.scenes, looks, int(rng.choice(_SIZES)), rng)
        seen = look(self._network, to_pixels(pictures))
        reading = misreading(seen, torch.from_numpy(self._code.write(dialogues.scenes)))
        return unlikelihood(self._network, lesson, seen) + _READING * reading
