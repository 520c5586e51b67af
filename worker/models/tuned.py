"""An adapter's changes of original weights as changes of native modules, by the conversions that load the weights.

A family that registers its conversions with transformers has registered its adapters' as well.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

from worker.checkpoint import find_adapter, read_training_arguments
from worker.engine.adapters import AdapterSlots, LowRank
from worker.fingerprint import digest_of
from worker.models.adapter import WAY_OUT, read_adapter
from worker.models.family import LoadError
from worker.models.weights import open_adapter


@dataclass(frozen=True, slots=True)
class TunedChanges:
    """What an adapter brings to a loaded network."""

    changes: dict[str, LowRank]
    """By the name of the native module."""
    system: str | None
    """The system text it was fine-tuned with, where that is recorded."""
    digest: str
    """A hash of its files."""


def read_tuned(path: str, slots: AdapterSlots) -> TunedChanges:
    """Read a run's directory for the network that these slots belong to; raises LoadError if they don't go together."""
    if (directory := find_adapter(Path(path))) is None:
        raise LoadError(f"{path} is not a LoRA directory: it has no adapter_config.json")
    changes = native_changes(slots.network, read_adapter(directory, open_adapter(directory)), path)
    for name in changes:
        if isinstance(slots.network.get_submodule(name), NonDynamicallyQuantizableLinear):  # its owner reads the weight
            raise LoadError(f"{path} changes {name}, which isn't run as a layer of its own: add --merge_lora true")
    return TunedChanges(changes, read_training_arguments(path).get("system") or None, digest_of(directory))


def merge_changes(network: Any, changes: Mapping[str, LowRank], path: str) -> None:
    """Change a loaded network's own weights for good; raises LoadError, naming `path`, if they don't go together."""
    for name, change in native_changes(network, changes, path).items():
        weight = network.get_submodule(name).weight.data
        weight.copy_(change.add_to(weight.cpu()))


def native_changes(network: Any, changes: Mapping[str, LowRank], path: str) -> dict[str, LowRank]:
    """Return the changes by native module; raises LoadError, naming `path`, for one that the network has no place for.

    Where a fused weight is split by rows, `b` is split the same way and every part shares `a`.
    """
    native: dict[str, LowRank] = {}
    translation = _Translation(network)
    for name, change in changes.items():
        for module, part in translation.parts(name, change, path).items():
            _check(network, module, part, f"{path} changes {name}")
            if module in native:
                raise LoadError(f"{path} changes {name} twice, under names that the model gives one layer")
            native[module] = part
    return native


class _Translation:
    """The conversions of one network."""

    def __init__(self, network: Any) -> None:
        mapping = get_model_conversion_mapping(network)
        self._network = network
        # A state_dict would unpack what quantised layers keep packed, under the feet of a running step.
        self._names = {**dict(network.named_parameters(remove_duplicate=False)), **dict(network.named_buffers())}
        self._renamings = [rule for rule in mapping if isinstance(rule, WeightRenaming)]
        self._converters = [rule for rule in mapping if isinstance(rule, WeightConverter)]

    def parts(self, name: str, change: LowRank, path: str) -> dict[str, LowRank]:
        """Return one original weight's change by the native modules it falls on."""
        renamed, pattern = self._rename(name)
        if renamed not in self._names:
            raise LoadError(f"{path} changes {name}, which the base model lacks: was it trained on another model?")
        if pattern is None:
            return {_module(renamed): change}
        converter = next(rule for rule in self._converters if pattern in rule.source_patterns)
        if len(converter.source_patterns) > 1:
            raise LoadError(f"{path} changes {name}, which is loaded fused with others: {WAY_OUT}")
        try:
            split = self._split(converter, renamed, change.b)
        except (RuntimeError, ValueError) as error:
            raise LoadError(f"{path} changes {name} in another shape: was it trained on another model?") from error
        return {_module(target): LowRank(change.a, b, change.scale) for target, b in split.items()}

    def _rename(self, name: str) -> tuple[str, str | None]:
        prefix = self._network.base_model_prefix
        renamed, pattern = rename_source_key(name, self._renamings, self._converters, prefix, self._names)
        if renamed not in self._names and name in self._names:  # trained on the native classes
            return name, None
        return renamed, pattern

    def _split(self, converter: Any, renamed: str, b: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return `b` as the converter splits a weight of as many rows, under full names."""
        first, targets = converter.target_patterns[0], converter.target_patterns
        tensors: dict[str, Any] = {converter.source_patterns[0]: [b]}
        for operation in converter.operations:
            tensors = operation.convert(
                tensors,
                source_patterns=converter.source_patterns,
                target_patterns=targets,
                full_layer_name=renamed,
                model=self._network,
                config=self._network.config,
            )
        return {renamed.replace(first, target, 1): tensor for target, tensor in tensors.items()}


def _module(weight: str) -> str:
    return weight.removesuffix(".weight")


def _check(network: Any, module: str, change: LowRank, what: str) -> None:
    linear = network.get_submodule(module)
    if not isinstance(linear, nn.Linear):
        raise LoadError(f"{what}, which is no linear layer: {WAY_OUT}")
    if (len(change.b), change.a.shape[1]) != (linear.out_features, linear.in_features):
        raise LoadError(f"{what} in another shape: was it trained on another model?")
