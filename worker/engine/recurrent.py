"""What linear-attention layers remember of all running sequences: states of fixed size, one row a sequence."""

from typing import Any

import torch
from transformers.cache_utils import LinearAttentionCacheLayerMixin

from worker.engine.pool import zeros

States = dict[int, torch.Tensor]


class StateSlots(LinearAttentionCacheLayerMixin):  # type: ignore[misc]  # transformers is untyped
    """One linear-attention layer's pools; decodes one token a row.

    Its states are views of the running rows, so that kernels which work in place write the pools.
    """

    record_past = False

    def __init__(self, sample: Any, rows: int) -> None:
        """Allocate rows for states as those of `sample`, a prefilled layer."""
        # The parent's constructor would assign the states, which are views here.
        self.number_of_states = sample.number_of_states
        self.has_previous_state = dict.fromkeys(range(self.number_of_states), True)
        self._convolutions = _pools(sample.conv_states, rows)
        self._recurrences = _pools(sample.recurrent_states, rows)
        self._count = 0

    @property
    def conv_states(self) -> States:
        """The running rows' last columns before each convolution."""
        return {index: pool[: self._count] for index, pool in self._convolutions.items()}

    @property
    def recurrent_states(self) -> States:
        """The running rows' recurrent states."""
        return {index: pool[: self._count] for index, pool in self._recurrences.items()}

    def step(self, rows: slice, positions: torch.Tensor, width: int) -> None:
        """Tell how many rows run; all of them begin with the first."""
        self._count = rows.stop

    def put(self, row: int, layer: Any) -> None:
        """Copy a prefilled layer's only row."""
        for pools, states in self._kinds(layer):
            for index, pool in pools.items():
                pool[row] = states[index][0]

    def clear(self, row: int) -> None:
        """Return a row to the state before the first token."""
        for pool in self._all:
            pool[row] = 0

    def copy(self, source: int, target: int, length: int) -> None:
        """Copy one row over another."""
        for pool in self._all:
            pool[target] = pool[source]

    def swap(self, row: int, other: int, length: int, other_length: int) -> None:
        """Let two rows change places."""
        for pool in self._all:
            pool[[row, other]] = pool[[other, row]]

    def update_conv_state(self, conv_states: torch.Tensor, state_idx: int = 0, **kwargs: Any) -> torch.Tensor:
        """Append one column a row, shape [rows, channels, 1]; return all columns, of which the last ones are kept."""
        state = self.conv_states[state_idx]
        columns = torch.cat([state, conv_states], dim=-1)
        state.copy_(columns[..., -state.shape[-1] :])
        return columns

    def update_recurrent_state(self, recurrent_states: torch.Tensor, state_idx: int = 0, **kwargs: Any) -> torch.Tensor:
        """Keep the rows' new states."""
        return self.recurrent_states[state_idx].copy_(recurrent_states)

    def lazy_initialization(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing: the pools exist from the start."""

    @property
    def _all(self) -> tuple[torch.Tensor, ...]:
        return (*self._convolutions.values(), *self._recurrences.values())

    def _kinds(self, layer: Any) -> tuple[tuple[States, States], ...]:
        return (self._convolutions, layer.conv_states), (self._recurrences, layer.recurrent_states)


def _pools(states: dict[int, torch.Tensor | None], rows: int) -> States:
    return {
        index: zeros((rows, *state.shape[1:]), state.dtype, state.device)
        for index, state in states.items()
        if state is not None
    }
