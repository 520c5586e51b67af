"""A LoRA directory as fine-tuning runs leave it: low-rank changes of weights under their original names."""

import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from worker.checkpoint import read_json
from worker.engine.adapters import LowRank
from worker.models.family import LoadError

_KEY = re.compile(r"(?:base_model\.model\.)?(?P<module>.+)\.lora_(?P<half>[AB])(?:\.default)?(?:\.weight)?")
"""As PEFT writes it, and as ms-swift's own tuners do: with or without prefix, adapter name and ending."""
_PLAIN = {"bias": "none", "use_dora": False, "fan_in_fan_out": False, "lora_bias": False}
"""Options of adapter_config.json and the only value of each that is plain LoRA."""
_FURTHER = ("modules_to_save", "trainable_token_indices", "target_parameters", "layer_replication")
"""Options that are plain LoRA only while they are empty."""
WAY_OUT = "merge it with the tool that wrote it, and name the result with --ckpt_dir"


def read_adapter(directory: Path, tensors: dict[str, Any]) -> dict[str, LowRank]:
    """Return the changes by weight name, as `language_model.model.layers.0.attention.wqkv.weight`.

    Raises LoadError for whatever is more than plain LoRA on linear layers.
    """
    config = read_json(directory / "adapter_config.json")
    _refuse_unsupported(directory, config)
    halves = _by_module(directory, tensors)
    changes = {}
    for name, found in halves.items():
        if absent := {"A", "B"} - found.keys():
            raise LoadError(f"{directory} isn't plain LoRA: {name} has no lora_{min(absent)}")
        a, b = (tensors[found[half]][...] for half in "AB")
        if a.ndim != 2 or b.ndim != 2 or a.shape[0] != b.shape[1]:
            raise LoadError(f"{directory} isn't plain LoRA on linear layers: {name} has shapes {a.shape} and {b.shape}")
        changes[f"{name}.weight"] = LowRank(a, b, _scale(directory, config, name, rank=len(a)))
    return changes


def _by_module(directory: Path, keys: Iterable[str]) -> dict[str, dict[str, str]]:
    """Return, for each module, the keys of its two halves."""
    halves: dict[str, dict[str, str]] = {}
    for key in keys:
        if (match := _KEY.fullmatch(key)) is None:
            raise LoadError(f"{directory} isn't plain LoRA: it has {key}")
        halves.setdefault(match["module"], {})[match["half"]] = key
    return halves


def _scale(directory: Path, config: dict[str, Any], module: str, rank: int) -> float:
    """Return a module's scale; its rank, which `rank_pattern` may set apart, is that of its tensors."""
    patterns: dict[str, float] = config.get("alpha_pattern") or {}
    alpha = next((own for pattern, own in patterns.items() if _names(pattern, module)), config.get("lora_alpha"))
    if alpha is None:
        raise LoadError(f"{directory}: adapter_config.json has no lora_alpha")
    return float(alpha / (math.sqrt(rank) if config.get("use_rslora") else rank))


def _names(pattern: str, module: str) -> bool:
    """Return whether a key of `alpha_pattern` names the module, as PEFT reads it: as its end, from a dot on."""
    return re.match(rf"(.*\.)?({pattern})$", module) is not None


def _refuse_unsupported(directory: Path, config: dict[str, Any]) -> None:
    if (kind := config.get("peft_type", "LORA")) != "LORA":
        raise LoadError(f"{directory}: adapters of type {kind} can't be loaded, only LORA: {WAY_OUT}")
    for option, plain in _PLAIN.items():
        if config.get(option, plain) != plain:
            raise LoadError(f"{directory}: LoRA with {option}={config[option]} can't be loaded: {WAY_OUT}")
    for option in _FURTHER:
        if config.get(option):
            raise LoadError(f"{directory}: LoRA with {option} can't be loaded: {WAY_OUT}")
