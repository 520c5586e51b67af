"""Adapters that peft itself makes for tiny checkpoints of native classes, and what peft says of them."""

import warnings

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from worker.models.device import Placement
from worker.models.generic_network import load_network, read_architecture

OLDER = {
    "llama": [],
    "qwen2vl": [("model.language_model.", "model."), ("model.visual.", "visual.")],
    "llava": [
        ("model.language_model.", "language_model.model."),
        ("model.vision_tower.", "vision_tower.vision_model."),
        ("model.multi_modal_projector.", "multi_modal_projector."),
    ],
    "gemma3": [
        ("model.language_model.", "language_model.model."),
        ("model.vision_tower.", "vision_tower.vision_model."),
    ],
    "internvl": [
        ("model.language_model.", "language_model.model."),
        ("model.vision_tower.", "vision_tower."),
        ("model.multi_modal_projector.", "multi_modal_projector."),
    ],
    "qwen2audio": [
        ("model.language_model.", "language_model.model."),
        ("model.audio_tower.", "audio_tower."),
        ("model.multi_modal_projector.", "multi_modal_projector."),
    ],
    "qwen35": [],
    "onevision": [
        ("model.language_model.", "language_model.model."),
        ("model.vision_tower.", "vision_tower.vision_model."),
        ("model.multi_modal_projector.", "multi_modal_projector."),
    ],
}
"""What each class's modules were called when transformers 4.4x trained adapters: (today's, then's)."""


def tune(checkpoint, directory, seed=0, **options):
    """Save a random LoRA of a checkpoint's linear layers, towers included; return peft's own model of the two."""
    torch.manual_seed(seed)
    placement = Placement((torch.device("cpu"),), torch.float32)
    network = load_network(checkpoint, read_architecture(checkpoint), placement)
    given = {"r": 4, "lora_alpha": 2, "target_modules": "all-linear", "init_lora_weights": False} | options
    given = {"exclude_modules": r".*vision_tower\.head\..*"} | given if _has_head(network) else given
    with warnings.catch_warnings():  # on what it can't copy of a local base
        warnings.simplefilter("ignore")
        tuned = get_peft_model(network, LoraConfig(**given)).eval()
        tuned.save_pretrained(directory)
    return tuned


def _has_head(network):
    """SigLIP's, whose attention runs its layers by itself; peft takes no pattern that excludes nothing."""
    return any("vision_tower.head." in name for name, _ in network.named_modules())


def logits(network, prompt):
    """What a network says after a prompt."""
    with torch.inference_mode():
        ids = torch.tensor([prompt.token_ids])
        return network(input_ids=ids, **prompt.features, **prompt.token_features).logits[0, -1]


def rename(directory, pairs):
    """Give an adapter's tensors the names of an older transformers."""
    path = directory / "adapter_model.safetensors"
    renamed = {}
    for key, tensor in load_file(path).items():
        for now, then in pairs:
            prefix = f"base_model.model.{now}"
            if key.startswith(prefix):
                key = f"base_model.model.{then}{key.removeprefix(prefix)}"
                break
        renamed[key] = tensor
    save_file(renamed, path)
    return set(renamed)


def write_plain(directory, shapes):
    """Save an adapter of zeros by hand: module → (rows, columns)."""
    halves = {"A": lambda rows, columns: (4, columns), "B": lambda rows, columns: (rows, 4)}
    tensors = {
        f"{module}.lora_{half}.weight": torch.zeros(size(*shape))
        for module, shape in shapes.items()
        for half, size in halves.items()
    }
    save_file(tensors, directory / "adapter_model.safetensors")
    (directory / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 4, "lora_alpha": 8}')
