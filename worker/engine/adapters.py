"""Several adapters beside one base network: each row of a batch takes the low-rank changes of its own slot.

It knows no names and no files; a slot is a number.
"""

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from worker.engine.sequence import BASE
from worker.engine.upload import upload


@dataclass(frozen=True, slots=True)
class LowRank:
    """The change of one weight: `scale * b @ a`."""

    a: torch.Tensor  # [rank, columns]
    b: torch.Tensor  # [rows, rank]
    scale: float

    def add_to(self, weight: torch.Tensor) -> torch.Tensor:
        """Return the changed weight, in float32 so that nothing is lost before the model's own precision."""
        return weight.float() + self.scale * (self.b.float() @ self.a.float())


@dataclass(slots=True)
class _Selection:
    """Which slot each row of the next forward takes; all layers look at the same one."""

    slots: torch.Tensor | None = None  # [rows]; one entry stands for every row, None for the base


class AdapterSlots:
    """Created with the runner; slots are filled and emptied between its steps, in the engine's thread."""

    def __init__(self, network: Any) -> None:
        self.network = network
        self._layers: dict[str, _Layer] = {}
        self._selection = _Selection()
        self._fillings = Counter[int]()
        self.version = 0
        """Changes with anything in any slot: what was recorded before looks at weights that may be gone."""

    def identity(self, slot: int) -> Hashable:
        """Return what changes when a slot is filled with something else."""
        return slot, self._fillings[slot]

    def put(self, slot: int, changes: Mapping[str, LowRank]) -> None:
        """Fill an empty slot with the changes by module name; raises RuntimeError if memory doesn't hold them."""
        self._fillings[slot] += 1
        self.version += 1
        try:
            for name, change in changes.items():
                if name not in self._layers:
                    linear = self.network.get_submodule(name)
                    self._layers[name] = _Layer(linear, self.network.dtype, self._selection)
                self._layers[name].put(slot, change)
            for layer in self._layers.values():
                layer.grow(slot + 1, rank=0)
        except RuntimeError:
            self.clear(slot)
            raise

    def clear(self, slot: int) -> None:
        """Empty a slot that no sequence uses any more; a layer that nothing changes any more runs as it was built."""
        self.version += 1
        for name, layer in list(self._layers.items()):
            layer.clear(slot)
            if layer.is_empty:
                layer.detach()
                del self._layers[name]

    def select(self, slots: Sequence[int]) -> None:
        """Say which slot each row of the next forward takes."""
        distinct = list(dict.fromkeys(slots))
        if distinct == [BASE]:
            self._selection.slots = None
        else:
            chosen = distinct if len(distinct) == 1 else list(slots)
            self._selection.slots = upload(chosen, torch.long, self.network.device)

    def select_rows(self, slots: torch.Tensor | None) -> None:
        """Say the same by a tensor on the device, shape [rows], whose numbers may change later; None is the base."""
        self._selection.slots = slots


class _Layer:
    """One linear layer's changes in all slots, stacked; ranks that are smaller end in zeros."""

    def __init__(self, linear: nn.Linear, dtype: torch.dtype, selection: _Selection) -> None:
        """Take the layer as it is; `dtype` is what one computes in whose weights are quantised."""
        self._selection = selection
        self._filled: set[int] = set()
        weight = linear.weight
        given: Any = {"dtype": weight.dtype if weight.is_floating_point() else dtype, "device": weight.device}
        self._a = torch.zeros(1, 0, linear.in_features, **given)  # [slots, rank, in]
        self._b = torch.zeros(1, linear.out_features, 0, **given)  # [slots, out, rank]
        self._hook = linear.register_forward_hook(self._add)

    @property
    def is_empty(self) -> bool:
        return not self._filled

    def grow(self, num_slots: int, rank: int) -> None:
        """Make room, if it isn't there."""
        more_slots, more_rank = max(num_slots - len(self._a), 0), max(rank - self._a.shape[1], 0)
        if more_slots or more_rank:
            self._a = nn.functional.pad(self._a, (0, 0, 0, more_rank, 0, more_slots))
            self._b = nn.functional.pad(self._b, (0, more_rank, 0, 0, 0, more_slots))

    def put(self, slot: int, change: LowRank) -> None:
        rank = len(change.a)
        self.grow(slot + 1, rank)
        self._a[slot, :rank] = change.a
        self._b[slot, :, :rank] = change.scale * change.b.float()
        self._filled.add(slot)

    def clear(self, slot: int) -> None:
        if slot in self._filled:
            self._filled.remove(slot)
            self._a[slot] = 0
            self._b[slot] = 0

    def detach(self) -> None:
        """Leave the layer as it was built."""
        self._hook.remove()

    def _add(self, linear: nn.Module, arguments: tuple[torch.Tensor], output: torch.Tensor) -> torch.Tensor | None:
        """Add each row's change; rows lie in the first dimension, of which one sequence's prefill is a single one."""
        if (slots := self._selection.slots) is None:
            return None
        slots = slots.to(self._a.device)  # of layers on several devices
        rows = arguments[0].reshape(slots.shape[0], -1, arguments[0].shape[-1])
        return output + (rows @ self._a[slots].mT @ self._b[slots].mT).view_as(output)
