"""A LoRA directory as fine-tuning runs leave it: low-rank changes of weights under their original names."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from worker.models.family import LoadError

_PREFIX = "base_model.model."


@dataclass(frozen=True, slots=True)
class LowRank:
    """The change of one weight: `scale * b @ a`."""

    a: torch.Tensor  # [rank, columns]
    b: torch.Tensor  # [rows, rank]
    scale: float

    def add_to(self, weight: torch.Tensor) -> torch.Tensor:
        """Return the changed weight, in float32 so that nothing is lost before the model's own precision."""
        return weight.float() + self.scale * (self.b.float() @ self.a.float())


def read_adapter(directory: Path, tensors: dict[str, Any]) -> dict[str, LowRank]:
    """Return the changes by weight name, as `language_model.model.layers.0.attention.wqkv.weight`.

    Raises LoadError for whatever is more than plain LoRA on linear layers.
    """
    config = json.loads((directory / "adapter_config.json").read_text(encoding="utf-8"))
    _refuse_unsupported(directory, config)
    names = {key.removeprefix(_PREFIX).rsplit(".lora_", 1)[0] for key in tensors}
    changes = {}
    for name in names:
        try:
            a, b = (tensors[f"{_PREFIX}{name}.lora_{half}.weight"][...] for half in "AB")
        except KeyError as missing:
            raise LoadError(f"{directory} isn't plain LoRA: it has no {missing}") from None
        changes[f"{name}.weight"] = LowRank(a, b, _scale(config, rank=len(a)))
    return changes


def _scale(config: dict[str, Any], rank: int) -> float:
    divisor = math.sqrt(rank) if config.get("use_rslora") else rank
    return float(config["lora_alpha"] / divisor)


def _refuse_unsupported(directory: Path, config: dict[str, Any]) -> None:
    if (kind := config.get("peft_type", "LORA")) != "LORA":
        raise LoadError(f"{directory}: adapters of type {kind} can't be loaded, only LORA")
    for option, plain in (("bias", "none"), ("use_dora", False), ("fan_in_fan_out", False)):
        if config.get(option, plain) != plain:
            raise LoadError(f"{directory}: LoRA with {option}={config[option]} can't be loaded")
    for option in ("modules_to_save", "alpha_pattern"):
        if config.get(option):
            raise LoadError(f"{directory}: LoRA with {option} can't be loaded")
