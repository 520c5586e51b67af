"""A decode step's forward: one more token of each row through the model."""

from collections.abc import Callable
from typing import Any, Protocol

import torch

from worker.engine.adapters import AdapterSlots
from worker.engine.cache import SlotCache
from worker.engine.feed import Feed

TOLERANCE = {torch.float16: 0.02, torch.bfloat16: 0.1}
"""How far a recorded step's logits may be off those of other shapes, as a share of the largest one."""
FINE_TOLERANCE = 0.001
"""Of other precisions."""


class Forward(Protocol):
    """Asks a step of the device, and waits for nothing."""

    def num_rows(self, count: int) -> int:
        """Return how many rows a feed has to have for so many sequences."""
        ...

    def __call__(self, feed: Feed, slots: list[int], width: int) -> torch.Tensor:
        """Return the logits of the next tokens, shape [sequences, vocab].

        Each sequence takes the adapter of its slot, and none is longer than `width`, its newest token included.
        """
        ...


Record = Callable[["EagerForward", AdapterSlots, int, int], Forward]
"""Returns what makes the same steps without the model's code, of at most so many rows and tokens."""


class EagerForward:
    """Runs the model's own code in each step; implements `Forward`."""

    def __init__(self, model: Any, cache: SlotCache, adapters: AdapterSlots) -> None:
        self._model = model
        self.cache = cache
        self._adapters = adapters

    @property
    def name(self) -> str:
        """The model's, for warnings."""
        return type(self._model).__name__

    def num_rows(self, count: int) -> int:
        """No more than there are."""
        return count

    def __call__(self, feed: Feed, slots: list[int], width: int) -> torch.Tensor:
        """Look at no more rows and tokens than there are."""
        self._adapters.select(slots)
        return self.run(feed.first(len(slots)), width)

    def run(self, feed: Feed, width: int) -> torch.Tensor:
        """Return the logits of all rows of the feed; which adapters they take has been said."""
        return self.step(feed, torch.arange(width, device=feed.numbers.device))

    def step(self, feed: Feed, columns: torch.Tensor) -> torch.Tensor:
        """Do the same for rows that end before as many columns as there are, told by their numbers from 0 on."""
        logits: torch.Tensor = self._model(
            input_ids=feed.token_ids,
            position_ids=feed.positions,
            attention_mask=self.cache.step(feed.places, feed.indices, columns),
            past_key_values=self.cache,
            use_cache=True,
            **feed.features,
        ).logits
        return logits[:, -1]


def check_alike(logits: torch.Tensor, expected: torch.Tensor) -> None:
    """Raise ValueError if a recorded step says something else than the eager one, rounding aside."""
    largest = torch.where(expected.isfinite(), expected, 0).abs().amax().item()
    allowed = largest * TOLERANCE.get(expected.dtype, FINE_TOLERANCE)
    if not torch.isclose(logits, expected, rtol=0, atol=allowed, equal_nan=True).all():
        off = (logits.float() - expected.float()).abs().amax().item()
        raise ValueError(f"its logits are off by {off:.3g}, and {allowed:.3g} is allowed")


def in_one_line(error: Exception) -> str:
    """Return what was raised while a step was recorded, for a warning."""
    reason = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {reason}"
