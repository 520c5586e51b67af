"""Trains one stage after the other; what was reached is kept, and an interrupted run goes on from there."""

import math
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from tools.demo.optimizer import Muon

_WARMUP = 0.02
"""Share of the steps in which the learning rate rises."""
_LEAST = 0.02
"""Share of it that is left at the end."""
_DECAY = 0.02
_SAVE_EVERY_S = 120.0
_REPORT_EVERY = 10


class Stage(Protocol):
    """A loss and what it trains."""

    name: str
    rate: float
    """The highest learning rate."""

    def parameters(self) -> Iterable[nn.Parameter]:
        """Return what is trained."""
        ...

    def loss(self, rng: np.random.Generator, progress: float) -> torch.Tensor:
        """Return the loss of a new batch; `progress` goes from 0 to 1."""
        ...


@dataclass
class Run:
    """One stage's training, as it is kept in a file."""

    network: Any
    stage: Stage
    path: Path
    step: int = 0
    """Steps taken."""

    def __post_init__(self) -> None:
        parameters = list(self.stage.parameters())
        tables = {id(module.weight) for module in self.network.modules() if isinstance(module, nn.Embedding)}
        matrices = [parameter for parameter in parameters if parameter.ndim == 2 and id(parameter) not in tables]
        rest = [parameter for parameter in parameters if parameter.ndim != 2 or id(parameter) in tables]
        chosen = {id(parameter) for parameter in parameters}
        self._trained = {name: p for name, p in self.network.named_parameters() if id(p) in chosen}
        self._optimizers: list[torch.optim.Optimizer] = [Muon(matrices, lr=self.stage.rate, weight_decay=_DECAY)]
        if rest:
            self._optimizers.append(torch.optim.AdamW(rest, lr=self.stage.rate, weight_decay=0.0, betas=(0.9, 0.98)))

    def resume(self) -> None:
        """Go on from the file, if there is one."""
        if self.path.exists():
            kept = torch.load(self.path, weights_only=True)
            with torch.no_grad():
                for name, weight in kept["weights"].items():
                    self._trained[name].copy_(weight)
            for optimizer, state in zip(self._optimizers, kept["optimizers"], strict=True):
                optimizer.load_state_dict(state)
            self.step = kept["step"]

    def save(self) -> None:
        """Replace the file."""
        states = [optimizer.state_dict() for optimizer in self._optimizers]
        weights = {name: parameter.detach() for name, parameter in self._trained.items()}
        kept = {"weights": weights, "optimizers": states, "step": self.step}
        unfinished = self.path.with_suffix(".unfinished")
        torch.save(kept, unfinished)
        os.replace(unfinished, self.path)

    def advance(self, num_steps: int, seed: int) -> float:
        """Take one step of `num_steps`, which depends on the seed and its number only; return the loss."""
        progress = self.step / num_steps
        rate = self.stage.rate * _share(progress, 1 / num_steps)
        for optimizer in self._optimizers:
            optimizer.zero_grad()
            for group in optimizer.param_groups:
                group["lr"] = rate
        loss = self.stage.loss(np.random.default_rng((seed, self.step)), progress)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it so
        nn.utils.clip_grad_norm_(self._trained.values(), 1.0)
        for optimizer in self._optimizers:
            optimizer.step()
        self.step += 1
        return loss.item()


def train(run: Run, num_steps: int, seed: int, report: Callable[[str], None]) -> None:
    """Train a stage to its end."""
    run.resume()
    run.network.train()
    recent: list[float] = []
    saved_s = time.monotonic()
    while run.step < num_steps:
        recent = [*recent[1 - _REPORT_EVERY :], run.advance(num_steps, seed)]
        if run.step % _REPORT_EVERY == 0 or run.step == num_steps:
            report(f"{run.stage.name}: step {run.step} of {num_steps}, loss {np.mean(recent):.3f}")
        if time.monotonic() - saved_s > _SAVE_EVERY_S:
            run.save()
            saved_s = time.monotonic()
    run.save()


def _share(progress: float, step: float) -> float:
    """Return how much of the learning rate applies: it rises in a line and falls in half a wave."""
    return min(1.0, (progress + step) / _WARMUP) * (_LEAST + (1 - _LEAST) * (1 + math.cos(math.pi * progress)) / 2)
