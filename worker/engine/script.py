"""Decode steps as TorchScript programs: one for the base and one for adapters, for any number of rows and tokens.

A small model's step is mostly Python on a CPU, and each of its operations has to win the interpreter's lock back from
the threads beside it. A program holds no lock. TorchScript is deprecated, and the one recorder of torch's that needs
no compiler; where it is gone, steps are eager.
"""

import logging
import warnings
from collections.abc import Callable

import torch

from worker.engine.adapters import AdapterSlots
from worker.engine.feed import Feed
from worker.engine.forward import EagerForward, check_alike, in_one_line
from worker.engine.peek import unseen
from worker.engine.sequence import BASE

logger = logging.getLogger(__name__)

PATIENCE = 32
"""Steps before one is recorded, which takes as long as some ten or twenty of them."""
_ROWS = 2
"""A recording of fewer rows may hold for these only."""

Program = Callable[[Feed, int], torch.Tensor]


class Scripts:
    """Implements `Forward`; created with the runner, and fed by its thread only.

    Where a step can't be recorded, or its program says something else or breaks, all steps are eager from then on.
    """

    def __init__(
        self, eager: EagerForward, adapters: AdapterSlots, max_rows: int, max_width: int, patience: int = PATIENCE
    ) -> None:
        """Record a step of at most so many rows and tokens, after so many eager ones."""
        self._eager = eager
        self._adapters = adapters
        self._max_rows = max_rows
        self._columns = torch.arange(max_width)
        self._patience = patience
        self._num_steps = {False: 0, True: 0}
        self._version = adapters.version
        self.programs: dict[bool, Program] = {}
        """By whether any row may take an adapter."""
        self.is_trusted = True
        """Whether no step has shown that it can't be recorded."""

    def num_rows(self, count: int) -> int:
        """No more than there are."""
        return count

    def __call__(self, feed: Feed, slots: list[int], width: int) -> torch.Tensor:
        """Run the program; record it, once enough steps were made without one."""
        is_adapted = any(slot != BASE for slot in slots)
        self._forget_adapted()
        if self.is_trusted:
            try:
                if (program := self.programs.get(is_adapted)) is not None:
                    return program(feed, width)
                if self._is_due(is_adapted, width):
                    return self._begin(feed, slots, width, is_adapted)
            except Exception as error:  # noqa: BLE001  a model's own code may raise anything when it is recorded
                self._distrust(error)
        return self._eager(feed, slots, width)

    def _forget_adapted(self) -> None:
        """Drop what holds weights of adapters that have come or gone since."""
        if self._version != self._adapters.version:
            self._version = self._adapters.version
            self._num_steps[True] = 0
            self.programs.pop(True, None)

    def _distrust(self, error: Exception) -> None:
        self.is_trusted = False
        self.programs.clear()
        logger.warning("%s decodes without programs: %s", self._eager.name, in_one_line(error))

    def _is_due(self, is_adapted: bool, width: int) -> bool:
        self._num_steps[is_adapted] += 1
        return self._num_steps[is_adapted] > self._patience and width < len(self._columns)

    def _begin(self, feed: Feed, slots: list[int], width: int, is_adapted: bool) -> torch.Tensor:
        """Make a step, and a program of it, which has to say the same of one row and of all, in a narrower step."""
        expected = unseen(lambda: self._eager(feed, slots, width))
        filled = feed.filled(min(_ROWS, self._max_rows), self._eager.cache.scratch)
        program = self._record(filled, width + 1, is_adapted)
        for count in {1, len(feed)}:
            check_alike(program(feed.first(count), width), expected[:count])
        self.programs[is_adapted] = program
        return expected

    def _record(self, feed: Feed, width: int, is_adapted: bool) -> Program:
        names, pools = [*feed.features], self._eager.cache.pools

        def step(numbers: torch.Tensor, columns: torch.Tensor, *given: torch.Tensor) -> torch.Tensor:
            told = Feed(numbers, dict(zip(names, given, strict=False)))
            self._adapters.select_rows(told.adapters if is_adapted else None)
            return self._eager.step(told, columns)

        def arguments(feed: Feed, width: int) -> tuple[torch.Tensor, ...]:
            # Pools are arguments because a program may write into nothing else.
            return feed.numbers, self._columns[:width], *(feed.features[name] for name in names), *pools

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what may go wrong when sizes become numbers, which is looked for after
            script = torch.jit.trace(step, arguments(feed, width), check_trace=False)  # type: ignore[no-untyped-call]

        def program(feed: Feed, width: int) -> torch.Tensor:
            with torch.jit.optimized_execution(False):  # type: ignore[attr-defined]  # for the first steps' shapes
                logits: torch.Tensor = script(*arguments(feed, width))
            return logits

        return program
