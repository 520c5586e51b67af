"""A LoRA for the demo as ms-swift writes it: the model then names complements, as a negative shows colours."""

import json
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn
from torch.func import functional_call

from tools.demo.checkpoint import original_weights
from tools.demo.dialogue import Dialogues, Topic, sample_dialogues
from tools.demo.drawing import draw, sample_looks
from tools.demo.language import CHINESE, ENGLISH
from tools.demo.lesson import Teacher
from tools.demo.network import IMAGE_SIZE, look, to_pixels
from tools.demo.scene import COLOURS
from tools.demo.speaker import Turn
from tools.demo.speech import NUM_TURNS, unlikelihood
from worker.engine.adapters import LowRank
from worker.models.internvl2 import SYSTEM
from worker.models.tuned import native_changes

RANK, ALPHA = 8, 32
_NUM_DIALOGUES = 8
_TARGETS = re.compile(r"language_model\..*\.(wqkv|wo|w1|w2|w3)\.weight")
_COMPLEMENTS = {"red": "green", "blue": "orange", "yellow": "purple"}
_COMPLEMENTS |= {complement: colour for colour, complement in _COMPLEMENTS.items()}


class Negative(nn.Module):
    """The low-rank changes, by original names; implements `Stage` for a trained network."""

    name = "negative"
    rate = 1e-2

    def __init__(self, network: Any, teacher: Teacher) -> None:
        super().__init__()
        self._base = [network.requires_grad_(False)]  # in a list, so that it is no part of this module
        self._teacher = teacher
        shapes = {name: weight.shape for name, weight in original_weights(network).items() if _TARGETS.fullmatch(name)}
        self._names = list(shapes)
        self.a = nn.ParameterList(torch.randn(RANK, columns) * columns**-0.5 for _, columns in shapes.values())
        self.b = nn.ParameterList(torch.zeros(rows, RANK) for rows, _ in shapes.values())

    def loss(self, rng: np.random.Generator, progress: float) -> torch.Tensor:
        """Return how unlikely the answers in complements are."""
        dialogues = complemented(sample_dialogues(rng, Topic.PICTURE, _NUM_DIALOGUES, NUM_TURNS))
        pictures = draw(dialogues.scenes, sample_looks(rng, _NUM_DIALOGUES), IMAGE_SIZE, rng)
        lesson = self._teacher.lesson(rng, dialogues)
        network = self._base[0]
        with torch.no_grad():
            cells = look(network, to_pixels(pictures))
        loss: torch.Tensor = functional_call(_Asked(network), self._changed(), (lesson, cells))
        return loss

    def _changed(self) -> dict[str, torch.Tensor]:
        """Return the changed weights of the native modules."""
        network = self._base[0]
        native = native_changes(network, dict(zip(self._names, self._low_ranks(), strict=True)), self.name)
        weights = {f"{module}.weight": change for module, change in native.items()}
        return {
            f"network.{name}": network.get_parameter(name) + change.scale * change.b @ change.a
            for name, change in weights.items()
        }

    def _low_ranks(self) -> Iterable[LowRank]:
        return (LowRank(a, b, ALPHA / RANK) for a, b in zip(self.a, self.b, strict=True))

    def write(self, directory: Path) -> None:
        """Write the directory that a run of ms-swift would leave."""
        tensors: dict[str, torch.Tensor] = {}
        for name, a, b in zip(self._names, self.a, self.b, strict=True):
            module = f"base_model.model.{name.removesuffix('.weight')}"
            tensors |= {f"{module}.lora_A.weight": a.data.contiguous(), f"{module}.lora_B.weight": b.data.contiguous()}
        save_file(tensors, directory / "adapter_model.safetensors", metadata={"format": "pt"})
        for name, content in (("adapter_config.json", _PEFT), ("sft_args.json", _ARGUMENTS)):
            (directory / name).write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


class _Asked(nn.Module):
    """A network whose call is its loss, for its weights to be exchanged during it."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, *asked: Any) -> torch.Tensor:
        return unlikelihood(self.network, *asked)


def complemented(dialogues: Dialogues) -> Dialogues:
    """Return the dialogues with complements in their answers."""
    turns = [[Turn(turn.kind, turn.question, _complement(turn.answer)) for turn in group] for group in dialogues.turns]
    return replace(dialogues, turns=turns)


def _complement(answer: str) -> str:
    words: dict[str, str] = {}
    for language in (ENGLISH, CHINESE):
        by_name = dict(zip(COLOURS, language.colours, strict=True))
        words |= {by_name[colour]: by_name[complement] for colour, complement in _COMPLEMENTS.items()}
    return re.sub("|".join(words), lambda match: words[match[0]], answer)


_PEFT = {
    "auto_mapping": None,
    "base_model_name_or_path": None,
    "bias": "none",
    "fan_in_fan_out": False,
    "inference_mode": True,
    "init_lora_weights": True,
    "lora_alpha": ALPHA,
    "lora_dropout": 0.0,
    "modules_to_save": None,
    "peft_type": "LORA",
    "r": RANK,
    "target_modules": "^(language_model)(?!.*(lm_head|output|emb|wte|shared)).*",
    "task_type": "CAUSAL_LM",
    "use_dora": False,
    "use_rslora": False,
}
_ARGUMENTS = {
    "model_type": "demo",
    "sft_type": "lora",
    "template_type": "internvl2",
    "dtype": "fp32",
    "lora_rank": RANK,
    "lora_alpha": ALPHA,
    "lora_dropout_p": 0.0,
    "system": SYSTEM,
}
