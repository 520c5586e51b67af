"""A decode step's forward: one more token of each row through the model."""

from typing import Any, Protocol

import torch

from worker.engine.adapters import AdapterSlots
from worker.engine.cache import SlotCache
from worker.engine.feed import Feed


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


class EagerForward:
    """Runs the model's own code in each step; implements `Forward`."""

    def __init__(self, model: Any, cache: SlotCache, adapters: AdapterSlots) -> None:
        self._model = model
        self._cache = cache
        self._adapters = adapters

    def num_rows(self, count: int) -> int:
        """No more than there are."""
        return count

    def __call__(self, feed: Feed, slots: list[int], width: int) -> torch.Tensor:
        """Look at no more rows and tokens than there are."""
        self._adapters.select(slots)
        return self.run(feed.first(len(slots)), width)

    def run(self, feed: Feed, width: int) -> torch.Tensor:
        """Return the logits of all rows of the feed; which adapters they take has been said."""
        logits: torch.Tensor = self._model(
            input_ids=feed.token_ids,
            position_ids=feed.positions,
            attention_mask=self._cache.step(feed.places, feed.indices, width),
            past_key_values=self._cache,
            use_cache=True,
            **feed.features,
        ).logits
        return logits[:, -1]
