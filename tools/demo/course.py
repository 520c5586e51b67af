"""The whole course: tokenizer, four stages, the checkpoint, and the adapter on top of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tools.demo.adapter import Negative
from tools.demo.checkpoint import read_checkpoint, write_checkpoint
from tools.demo.lesson import Teacher
from tools.demo.network import new_network
from tools.demo.sight import Sight
from tools.demo.speech import Practice, Speech, begin_with_words
from tools.demo.tokenizer import write_tokenizer
from tools.demo.training import Run, Stage, train
from tools.demo.whole import Whole
from worker.models.tokenizer import read_vocabulary

STEPS = {"sight": 9000, "speech": 17000, "practice": 16000, "whole": 4500, "negative": 700}
SMOKE_STEPS = {"sight": 30, "speech": 30, "practice": 1, "whole": 1, "negative": 1}
ALONE = ("sight", "speech")
"""Stages that need none before them, and so may be trained side by side."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """Where a course is taken, and how long."""

    state: Path
    """What was reached is kept here; a second course goes on from there."""
    shipped: Path
    """`demo` and `demo_negative` are written under it."""
    steps: Mapping[str, int]
    seed: int
    report: Callable[[str], None]

    def take(self, only: str | None = None) -> None:
        """Train all stages and write what came of them, or train one of ALONE."""
        torch.manual_seed(self.seed)
        checkpoint, adapter = self.shipped / "demo", self.shipped / "demo_negative"
        for directory in (self.state, checkpoint, adapter):
            directory.mkdir(parents=True, exist_ok=True)
        if not (checkpoint / "tokenizer.model").exists():
            write_tokenizer(checkpoint)
        vocabulary = read_vocabulary(checkpoint)
        teacher = Teacher(vocabulary)
        network = new_network(max(vocabulary.control_ids.values()) + 1, vocabulary.control_ids["<IMG_CONTEXT>"])
        begin_with_words(network, vocabulary)
        stages = Sight(network), Speech(network, teacher), Practice(network, teacher), Whole(network, teacher)
        for stage in stages:
            if only in (None, stage.name):
                self._train(network, stage)
        if only is None:
            write_checkpoint(checkpoint, network)
            negative = Negative(read_checkpoint(checkpoint, vocabulary), teacher)
            self._train(negative, negative)
            negative.write(adapter)

    def _train(self, network: Any, stage: Stage) -> None:
        run = Run(network, stage, self.state / f"{stage.name}.pt")
        train(run, self.steps[stage.name], self.seed, self.report)
