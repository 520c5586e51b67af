"""The second stage: a language model learns to speak about what it reads in the code, without eyes."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from tools.demo.concepts import Code
from tools.demo.dialogue import Topic, sample_dialogues
from tools.demo.lesson import IGNORED, Lesson, Teacher
from tools.demo.network import WIDTH
from tools.demo.scene import MAX_SHAPES
from worker.models.vocabulary import Vocabulary

NUM_TURNS = 8
_NUM_DIALOGUES = {Topic.PICTURE: 8, Topic.PAIR: 7, Topic.CLIP: 4}
_EASY_UNTIL, _EASIER_UNTIL, _STILL_UNTIL = 0.16, 0.08, 0.25
"""Up to which progress scenes have three shapes at most, or two, and most dialogues are about one picture."""
_BLUR, _NOISE = 0.006, 0.03


_WORD_STARTS = ("", " ")


def begin_with_words(network: Any, vocabulary: Vocabulary) -> None:
    """Let the words for kinds, colours and numbers begin as what the code has for them, where they are one token."""
    table = network.model.language_model.embed_tokens.weight
    for word, direction in Code(WIDTH).words().items():
        for start in _WORD_STARTS:
            token_ids = vocabulary.encode(start + word)
            if len(token_ids) == 1:
                with torch.no_grad():
                    table[token_ids[0]] += torch.from_numpy(direction)


class Speech:
    """Trains the language model; implements `Stage`."""

    name = "speech"
    rate = 3e-3

    def __init__(self, network: Any, teacher: Teacher) -> None:
        self._network = network
        self._teacher = teacher
        self._code = Code(WIDTH)

    def parameters(self) -> Iterable[nn.Parameter]:
        """Return what is trained."""
        parameters: Iterable[nn.Parameter] = self._network.model.language_model.parameters()
        return parameters

    def loss(self, rng: np.random.Generator, progress: float) -> torch.Tensor:
        """Return how unlikely the answers of a batch of dialogues are."""
        most = 2 if progress < _EASIER_UNTIL else 3 if progress < _EASY_UNTIL else MAX_SHAPES
        lesson, cells = self._read(rng, choose_topic(rng, still=progress < _STILL_UNTIL), most)
        return unlikelihood(self._network, lesson, cells)

    def _read(self, rng: np.random.Generator, topic: Topic, most: int) -> tuple[Lesson, torch.Tensor]:
        """Return dialogues, and what their pictures' cells say."""
        dialogues = sample_dialogues(rng, topic, _NUM_DIALOGUES[topic], NUM_TURNS, most)
        blur = rng.normal(0, _BLUR, (len(dialogues.scenes), MAX_SHAPES, 4))
        cells = self._code.write(dialogues.scenes, blur)
        noise = rng.standard_normal(cells.shape, dtype=np.float32) * _NOISE
        return self._teacher.lesson(rng, dialogues), torch.from_numpy(cells + noise)


class Practice(Speech):
    """Goes on with one picture at most times, where a word counts for more than it does in a long sentence.

    Which of two shapes lies further left is said in one word, and is the last thing to be learnt: in the mean over
    tokens it would be drowned by lists and boxes.
    """

    name = "practice"
    rate = 2e-3

    def loss(self, rng: np.random.Generator, progress: float) -> torch.Tensor:
        """Return how unlikely the answers of a batch of dialogues are, short ones weighing more."""
        lesson, cells = self._read(rng, choose_topic(rng, still=True), MAX_SHAPES)
        return unlikelihood(self._network, lesson, cells, short_ones_count=True)


def choose_topic(rng: np.random.Generator, *, still: bool) -> Topic:
    """Return what the next dialogues are about."""
    shares = (
        {Topic.PICTURE: 0.85, Topic.PAIR: 0.1, Topic.CLIP: 0.05}
        if still
        else {Topic.PICTURE: 0.5, Topic.PAIR: 0.32, Topic.CLIP: 0.18}
    )
    return list(shares)[rng.choice(len(shares), p=list(shares.values()))]


def unlikelihood(network: Any, lesson: Lesson, cells: torch.Tensor, *, short_ones_count: bool = False) -> torch.Tensor:
    """Return the mean over the answers' tokens; cells have shape [pictures, cells, width], in the dialogues' order."""
    embedded = network.model.language_model.embed_tokens(lesson.token_ids)
    is_seen = (lesson.token_ids == network.config.image_token_id)[..., None]
    embedded = embedded.masked_scatter(is_seen, cells.flatten(0, 1))
    hidden = network.model.language_model(inputs_embeds=embedded, use_cache=False).last_hidden_state[:, :-1]
    targets = lesson.targets[:, 1:]
    is_asked = targets != IGNORED
    errors = cross_entropy(network.lm_head(hidden[is_asked]), targets[is_asked], reduction="none")
    if not short_ones_count:
        return errors.mean()
    shares = lesson.shares[:, 1:][is_asked]
    return errors @ shares / shares.sum()
