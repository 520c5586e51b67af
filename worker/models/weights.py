"""The tensors of a checkpoint under their original names, read when asked for and changed by an adapter on the way."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from threading import Lock
from types import MappingProxyType
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from worker.engine.adapters import LowRank
from worker.models.adapter import read_adapter
from worker.models.family import LoadError

Weights = dict[str, Any]
"""Name → tensor, or what becomes one when indexed with `...`, as transformers reads its own files."""


@dataclass(frozen=True, slots=True)
class ChangedWeight:
    """A weight that an adapter changes once it is read."""

    weight: Any
    change: LowRank

    def __getitem__(self, key: Any) -> torch.Tensor:
        return self.change.add_to(self.weight[...])[key]


class CountedWeights(dict[str, Any]):
    """Weights that tell, as they are read, how many of them were.

    `pending` are the changes of an adapter that names weights as the native classes do: they are made after loading.
    """

    def __init__(self, weights: Weights, report: Callable[[str], None], pending: Mapping[str, LowRank]) -> None:
        super().__init__({name: _CountedWeight(weight, self) for name, weight in weights.items()})
        self.pending = pending
        self._report = report
        self._num_read = 0
        self._lock = Lock()  # transformers reads in several threads

    def count(self) -> None:
        """Report each full twentieth."""
        with self._lock:
            before, self._num_read = self._num_read, self._num_read + 1
            if before * 20 // len(self) != self._num_read * 20 // len(self):
                self._report(f"loading weights {self._num_read * 100 // len(self)} %")


@dataclass(frozen=True, slots=True)
class _CountedWeight:
    weight: Any
    counter: CountedWeights

    def __getitem__(self, key: Any) -> torch.Tensor:
        self.counter.count()
        tensor: torch.Tensor = self.weight[key]
        return tensor


def open_weights(
    directory: Path,
    adapter: Path | None,
    report: Callable[[str], None],
    *,
    beside: Mapping[str, Path] = MappingProxyType({}),
) -> CountedWeights:
    """Return a checkpoint's weights, changed by the adapter; raises LoadError if they can't be had.

    `beside` names directories whose weights count, under a prefix, instead of the checkpoint's own copies.
    """
    weights = _open_files(directory, "model.safetensors", "pytorch_model.bin")
    for prefix, place in beside.items():
        tower = _open_files(place, "model.safetensors", "pytorch_model.bin")
        weights = {name: weight for name, weight in weights.items() if not name.startswith(prefix)}
        weights |= {prefix + name: weight for name, weight in tower.items()}
    changes = {} if adapter is None else read_adapter(adapter, open_adapter(adapter))
    for name in changes.keys() & weights.keys():
        weights[name] = ChangedWeight(weights[name], changes.pop(name))
    return CountedWeights(weights, report, changes)


def open_adapter(directory: Path) -> Weights:
    """Return a LoRA directory's tensors; raises LoadError if they can't be had."""
    return _open_files(directory, "adapter_model.safetensors", "adapter_model.bin")


def _open_files(directory: Path, *names: str) -> Weights:
    """Return what the first of these files that exists holds, be it whole or in shards."""
    for name in names:
        if (index := directory / f"{name}.index.json").exists():
            shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
            return {k: w for shard in sorted(shards) for k, w in _open_file(directory / Path(shard).name).items()}
        if (directory / name).exists():
            return _open_file(directory / name)
    raise LoadError(f"{directory} has no weights: neither {' nor '.join(names)}")


def _open_file(path: Path) -> Weights:
    try:
        if path.suffix == ".safetensors":
            tensors: Any = safe_open(path, framework="pt")
            return {name: tensors.get_slice(name) for name in tensors.keys()}  # noqa: SIM118  # not a dict
        return dict(torch.load(path, map_location="cpu", weights_only=True, mmap=True))
    except (OSError, SafetensorError, UnpicklingError, RuntimeError) as error:
        raise LoadError(f"{path} can't be read: {error}") from error
