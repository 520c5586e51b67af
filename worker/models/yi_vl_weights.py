"""Yi-VL's original checkpoint as native classes: CLIP's tower, the authors' own projector, Llama."""

import re
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    PreTrainedModel,
)
from transformers.conversion_mapping import register_checkpoint_conversion_mapping
from transformers.core_model_loading import WeightRenaming
from transformers.modeling_outputs import BaseModelOutputWithPooling

from worker.checkpoint import read_json
from worker.models.family import LoadError

TOWER = "model.vision_tower.vision_tower."
"""What adapters call the tower, which lies in a folder of its own; a copy beside the rest is not read."""

_TEXT_FIELDS = {
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
    *("num_key_value_heads", "hidden_act", "max_position_embeddings", "rms_norm_eps", "rope_theta", "rope_scaling"),
    *("tie_word_embeddings", "attention_bias"),
}
_VISION_FIELDS = {
    *("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_channels"),
    *("image_size", "patch_size", "hidden_act", "layer_norm_eps"),
}
_SERVED = {
    "mm_projector_type": "mlp2x_gelu_Norm",
    "mm_vision_select_feature": "patch",
    "mm_use_im_start_end": False,
    "image_aspect_ratio": "pad",
}
"""What the published checkpoints say of themselves; another value would be another model."""


class YiVL(PreTrainedModel):  # type: ignore[misc]  # transformers is untyped
    """One checkpoint's network; pictures' rows take the places that the prompt names."""

    config_class = LlavaConfig
    config: LlavaConfig
    _supports_sdpa = True
    _keys_to_ignore_on_load_unexpected = (r"rotary_emb\.inv_freq$", r"\.position_ids$")  # older files list buffers

    def __init__(self, config: LlavaConfig) -> None:
        super().__init__(config)
        width = config.text_config.hidden_size
        self.vision_tower = CLIPVisionModel(config.vision_config)
        self.projector = nn.Sequential(
            nn.Linear(config.vision_config.hidden_size, width),
            nn.LayerNorm(width),
            nn.GELU(),
            nn.Linear(width, width),
            nn.LayerNorm(width),
        )
        self.language_model = LlamaForCausalLM(config.text_config)
        self.post_init()

    def see(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Return the pictures' rows, shape [pictures, tokens, width]: each patch, but not the class token."""
        blocks = self.vision_tower(pixel_values.to(self.dtype), output_hidden_states=True).hidden_states
        rows: torch.Tensor = self.projector(blocks[self.config.vision_feature_layer][:, 1:])
        return rows

    def get_image_features(self, pixel_values: torch.Tensor) -> BaseModelOutputWithPooling:
        """Return the pictures' rows as transformers' own models do."""
        return BaseModelOutputWithPooling(pooler_output=self.see(pixel_values))

    def forward(
        self,
        input_ids: torch.Tensor,
        pixel_values: torch.Tensor | None = None,
        image_positions: torch.Tensor | None = None,
        mm_encoder_outputs: dict[str, BaseModelOutputWithPooling] | None = None,
        logits_to_keep: int = 0,
        **arguments: Any,
    ) -> Any:
        """Read tokens as Llama does, after the rows of the pictures took `image_positions`, shape [rows]."""
        embeds = self.language_model.get_input_embeddings()(input_ids)
        if pixel_values is not None:
            mm_encoder_outputs = {"image": self.get_image_features(pixel_values)}
        if mm_encoder_outputs is not None:
            embeds[0, image_positions] = mm_encoder_outputs["image"].pooler_output.flatten(0, 1).to(embeds.dtype)
        return self.language_model(inputs_embeds=embeds, logits_to_keep=logits_to_keep, **arguments)


register_checkpoint_conversion_mapping(
    YiVL.__name__,
    [
        WeightRenaming(rf"^{re.escape(TOWER)}vision_model\.", "vision_tower."),
        WeightRenaming(r"^model\.mm_projector\.", "projector."),
        WeightRenaming(r"^model\.(embed_tokens|layers|norm)\.", r"language_model.model.\1."),
        WeightRenaming(r"^lm_head\.", "language_model.lm_head."),
    ],
)


def read_config(directory: Path) -> tuple[LlavaConfig, Path]:
    """Return the native configuration and the vision tower's folder.

    Raises LoadError for a checkpoint that isn't Yi-VL's kind of Llava.
    """
    original = read_json(directory / "config.json")
    for name, served in _SERVED.items():
        if original.get(name) != served:
            raise LoadError(f"the checkpoint has {name}={original.get(name)}; Yi-VL is served with {served}")
    tower = _find_tower(directory, original)
    return _translate_config(original, read_json(tower / "config.json")), tower


def _find_tower(directory: Path, original: dict[str, Any]) -> Path:
    """Return the folder of the vision tower; a fine-tuning run may have recorded where it once lay."""
    named = Path(original["mm_vision_tower"])
    tower = directory.joinpath(*named.parts[-2:])  # as `vit/clip-vit-H-14-…`
    if ".." in named.parts or not (tower / "config.json").exists():
        raise LoadError(f"the checkpoint lacks its vision tower: there is no {tower}")
    return tower


def _translate_config(original: dict[str, Any], tower: dict[str, Any]) -> LlavaConfig:
    vision = tower.get("vision_config") or tower  # whole CLIP's configuration, or its tower's alone
    text = {name: original[name] for name in _TEXT_FIELDS & original.keys() if original[name] is not None}
    return LlavaConfig(
        text_config=LlamaConfig(**text),
        vision_config=CLIPVisionConfig(**{name: vision[name] for name in _VISION_FIELDS & vision.keys()}),
        vision_feature_layer=original["mm_vision_select_layer"],
        tie_word_embeddings=original.get("tie_word_embeddings", False),
    )
