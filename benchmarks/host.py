"""What the engine's own code takes of a decode step, where the model's forward takes nothing.

A GPU makes the next step meanwhile: it waits for the host once that takes longer than the step.

Run: python -m benchmarks.host
"""

import time
from collections.abc import Iterator
from typing import Any

import torch

from benchmarks.page import heading, table
from shared.job import Message, Role, SamplingParams, TextPart
from worker.engine.engine import Engine
from worker.engine.feed import Feed
from worker.engine.sequence import Sequence
from worker.engine.torch_runner import TorchRunner
from worker.models.registry import load_model
from worker.settings import WorkerSettings

ROWS = (1, 8, 32, 64)
NUM_STEPS = 400
NUM_WARM_UPS = 8
NUM_DRAWS = 64
"""Different logits, one after the other, so that answers have words in them."""
SAMPLED = {"temperature": 0.7, "top_p": 0.9, "top_k": 50, "seed": 7}


class Still:
    """Implements `Forward`: whatever the model would say is known already."""

    def __init__(self, vocab_size: int, max_rows: int) -> None:
        self._logits = torch.randn(NUM_DRAWS, max_rows, vocab_size)
        self._num_steps = 0

    def num_rows(self, count: int) -> int:
        """No more than there are."""
        return count

    def __call__(self, feed: Feed, slots: list[int], width: int) -> torch.Tensor:
        """Return the next ones."""
        self._num_steps += 1
        return self._logits[self._num_steps % NUM_DRAWS, : len(slots)]


def step_s(model: Any, rows: int, **sampling: Any) -> float:
    """Return how long a step of so many rows takes."""
    vocab_size = model.runner.vocab_size
    still = Still(vocab_size, rows)
    runner = TorchRunner(model.runner._model, rows, 1024, record=lambda *_: still, overlaps=True)
    engine = Engine(runner, rows)
    prompt = model.prepare((Message(Role.USER, (TextPart("Tell me a story."),)),), {})
    asked = SamplingParams(ignore_eos=True, **sampling)
    for index in range(rows):
        engine.add(Sequence(f"{index}", prompt, asked, 2 * NUM_STEPS))
    for _ in range(NUM_WARM_UPS):
        engine.step()
    began_s = time.perf_counter()
    for _ in range(NUM_STEPS):
        engine.step()
    return (time.perf_counter() - began_s) / NUM_STEPS


def rows() -> Iterator[tuple[object, ...]]:
    model = load_model(WorkerSettings(model_type="demo"), lambda words: None)
    for count in ROWS:
        taken_s = step_s(model, count), step_s(model, count, **SAMPLED)
        yield count, *(f"{each * 1e3:.2f}" for each in taken_s), *(f"{count / each:,.0f}" for each in taken_s)


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    heading("python -m benchmarks.host")
    table(("rows", "ms a step: likeliest tokens", "drawn", "tokens/s at most: likeliest", "drawn"), rows())


if __name__ == "__main__":
    main()
