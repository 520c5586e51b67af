"""The demo's network: InternVL2's architecture at the smallest size, and its original configuration."""

import math
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from transformers import InternVLConfig

from tools.demo.drawing import Pictures
from worker.models.internvl2_weights import InternVL2ForConditionalGeneration, translate_config

IMAGE_SIZE = 64
PATCH_SIZE = 8
WIDTH = 128
"""Of the language model."""
SIGHT_WIDTH = 96
NUM_CELLS = (IMAGE_SIZE // PATCH_SIZE // 2) ** 2
"""Tokens of a picture."""

_MEAN = torch.tensor((0.485, 0.456, 0.406))[:, None, None]
_STD = torch.tensor((0.229, 0.224, 0.225))[:, None, None]


def original_config(vocabulary_size: int) -> dict[str, Any]:
    """Return config.json as the authors' own code reads it."""
    return {
        "architectures": ["InternVLChatModel"],
        "model_type": "internvl_chat",
        "template": "internlm2-chat",
        "downsample_ratio": 0.5,
        "dynamic_image_size": False,
        "force_image_size": IMAGE_SIZE,
        "max_dynamic_patch": 1,
        "min_dynamic_patch": 1,
        "ps_version": "v2",
        "select_layer": -1,
        "torch_dtype": "float16",
        "use_thumbnail": False,
        "llm_config": _language_config(vocabulary_size),
        "vision_config": _vision_config(),
    }


def _language_config(vocabulary_size: int) -> dict[str, Any]:
    return {
        "architectures": ["InternLM2ForCausalLM"],
        "model_type": "internlm2",
        "bias": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 2,
        "hidden_act": "silu",
        "hidden_size": WIDTH,
        "intermediate_size": 256,
        "max_position_embeddings": 2048,
        "num_attention_heads": 4,
        "num_hidden_layers": 4,
        "num_key_value_heads": 4,
        "rms_norm_eps": 1e-05,
        "rope_theta": 10000,
        "tie_word_embeddings": False,
        "torch_dtype": "float16",
        "vocab_size": vocabulary_size,
    }


def _vision_config() -> dict[str, Any]:
    return {
        "architectures": ["InternVisionModel"],
        "model_type": "intern_vit_6b",
        "hidden_act": "gelu",
        "hidden_size": SIGHT_WIDTH,
        "image_size": IMAGE_SIZE,
        "intermediate_size": 2 * SIGHT_WIDTH,
        "layer_norm_eps": 1e-06,
        "norm_type": "layer_norm",
        "num_attention_heads": 3,
        "num_channels": 3,
        "num_hidden_layers": 4,
        "patch_size": PATCH_SIZE,
        "qk_normalization": False,
        "qkv_bias": True,
        "torch_dtype": "float16",
    }


def new_network(vocabulary_size: int, image_token_id: int) -> Any:
    """Return an untrained network that starts from a plain view of where its patches are."""
    config: InternVLConfig = translate_config(original_config(vocabulary_size), image_token_id)
    network = InternVL2ForConditionalGeneration(config)
    network.lm_head.weight = network.model.language_model.embed_tokens.weight  # one table while it learns
    with torch.no_grad():
        for layer in network.model.vision_tower.encoder.layer:
            layer.lambda_1.fill_(1.0)
            layer.lambda_2.fill_(1.0)
        network.model.vision_tower.embeddings.position_embeddings[0, 1:] = _positions(IMAGE_SIZE // PATCH_SIZE)
        _widen(network.model.vision_tower)
        _widen(network.model.multi_modal_projector)
        network.model.multi_modal_projector.linear_2.weight *= 0.1
    return network


def _positions(side: int) -> torch.Tensor:
    """Return waves along both axes, shape [side * side, SIGHT_WIDTH]."""
    waves = torch.arange(side)[:, None] / (side ** torch.linspace(0, 1, SIGHT_WIDTH // 4)) * math.pi / 2
    axis = torch.cat([waves.sin(), waves.cos()], dim=1)
    rows, columns = axis[:, None].expand(-1, side, -1), axis[None].expand(side, -1, -1)
    return torch.cat([rows, columns], dim=-1).flatten(0, 1) * 0.5


def _widen(module: nn.Module) -> None:
    """Start linear layers at the scale that fits their width; the native one is meant for far larger models."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)


def to_pixels(pictures: Pictures) -> torch.Tensor:
    """Return pictures as the network takes them, shape [pictures, 3, side, side], shrunk as a worker shrinks them."""
    if pictures.shape[1] != IMAGE_SIZE:
        shrunk = [Image.fromarray(picture).resize((IMAGE_SIZE, IMAGE_SIZE)) for picture in pictures]
        pictures = np.stack([np.asarray(picture) for picture in shrunk])
    scaled = torch.from_numpy(np.ascontiguousarray(pictures.transpose(0, 3, 1, 2))).float() / 255
    return (scaled - _MEAN) / _STD


def look(network: Any, pixels: torch.Tensor) -> torch.Tensor:
    """Return what the language model gets to see of pictures, shape [pictures, NUM_CELLS, WIDTH]."""
    features: torch.Tensor = network.model.get_image_features(pixels, return_dict=True).pooler_output
    return features
