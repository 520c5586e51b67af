"""Qwen-VL's original checkpoint as native classes: Qwen2's blocks read what the vision tower sees."""

from typing import Any

import torch
from transformers import CLIPVisionConfig, LlavaConfig, PreTrainedModel, Qwen2Config, Qwen2ForCausalLM, Qwen2Model
from transformers.conversion_mapping import register_checkpoint_conversion_mapping
from transformers.core_model_loading import Chunk, ConversionOps, WeightConverter, WeightRenaming
from transformers.modeling_outputs import (
    BaseModelOutputWithPast,
    BaseModelOutputWithPooling,
    CausalLMOutputWithPast,
)

from worker.models.family import LoadError
from worker.models.qwen_vl_length import LengthTricks, rotation
from worker.models.qwen_vl_vision import VisionTower

_SERVED = {"no_bias": True, "rotary_pct": 1.0, "tie_word_embeddings": False}
"""What the published checkpoints say of themselves; another value would be another model."""


class QwenVLConfig(LlavaConfig):  # type: ignore[misc]  # transformers is untyped
    """The two parts' configurations under a name of its own."""

    model_type = "qwen_vl"


class StretchingModel(Qwen2Model):  # type: ignore[misc]  # transformers is untyped
    """Qwen2's own blocks, whose forward can't be told of the rows' rotations and scales."""

    tricks: LengthTricks

    def forward(
        self,
        inputs_embeds: torch.Tensor,
        position_ids: torch.Tensor,
        ntk_alpha: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        past_key_values: Any = None,
    ) -> BaseModelOutputWithPast:
        """Read rows of shape [rows, tokens, hidden] by each one's own `ntk_alpha`, shape [rows]."""
        hidden, text = inputs_embeds, self.config
        cos, sin = rotation(position_ids, ntk_alpha, text.rope_parameters["rope_theta"], text.head_dim)
        rotations = cos.to(hidden.dtype), sin.to(hidden.dtype)
        scale = self.tricks.query_scale(position_ids)
        for layer in self.layers:
            hidden = layer(
                hidden,
                attention_mask=attention_mask,
                position_embeddings=rotations,
                past_key_values=past_key_values,
                query_scale=scale,
            )
        return BaseModelOutputWithPast(last_hidden_state=self.norm(hidden))


class QwenVL(PreTrainedModel):  # type: ignore[misc]  # transformers is untyped
    """One checkpoint's network; pictures' rows take the places that the prompt names."""

    config_class = QwenVLConfig
    config: QwenVLConfig
    _supports_sdpa = True
    _supports_attention_backend = True

    def __init__(self, config: QwenVLConfig) -> None:
        super().__init__(config)
        self.visual = VisionTower(config.vision_config, config.text_config.hidden_size)
        self.language_model = Qwen2ForCausalLM(config.text_config)
        text = config.text_config
        self.tricks = LengthTricks(text.seq_length, text.use_dynamic_ntk, text.use_logn_attn)
        self.language_model.model = StretchingModel(text)
        self.language_model.model.tricks = self.tricks
        self.post_init()

    def see(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Return the pictures' rows, shape [pictures, queries, width]."""
        rows: torch.Tensor = self.visual(pixel_values.to(self.dtype))
        return rows

    def get_image_features(self, pixel_values: torch.Tensor) -> BaseModelOutputWithPooling:
        """Return the pictures' rows as transformers' own models do."""
        return BaseModelOutputWithPooling(pooler_output=self.see(pixel_values))

    def forward(
        self,
        input_ids: torch.Tensor,
        *,
        ntk_alpha: torch.Tensor | None = None,
        past_key_values: Any = None,
        position_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        image_positions: torch.Tensor | None = None,
        mm_encoder_outputs: dict[str, BaseModelOutputWithPooling] | None = None,
        logits_to_keep: int = 0,
        use_cache: bool = False,
    ) -> CausalLMOutputWithPast:
        """Read tokens of shape [rows, tokens] by each row's own `ntk_alpha`, shape [rows], or unstretched.

        Without `attention_mask` a prompt is read from its beginning; pictures take `image_positions` of the only row.
        """
        hidden = self.language_model.model.embed_tokens(input_ids)
        if pixel_values is not None:
            mm_encoder_outputs = {"image": self.get_image_features(pixel_values)}
        if mm_encoder_outputs is not None:
            hidden[0, image_positions] = mm_encoder_outputs["image"].pooler_output.flatten(0, 1).to(hidden.dtype)
        if position_ids is None:
            position_ids = torch.arange(input_ids.shape[1], device=input_ids.device)[None]
        if ntk_alpha is None:
            ntk_alpha = torch.ones(len(input_ids), device=input_ids.device)
        hidden = self.language_model.model(
            inputs_embeds=hidden,
            position_ids=position_ids,
            ntk_alpha=ntk_alpha,
            attention_mask=attention_mask,
            past_key_values=past_key_values if use_cache else None,
        ).last_hidden_state
        return CausalLMOutputWithPast(logits=self.language_model.lm_head(hidden[:, -logits_to_keep:]))


class SplitHeads(ConversionOps):  # type: ignore[misc]  # transformers is untyped
    """The tower's fused rows: for each head its query, its key, its value."""

    def convert(
        self, input_dict: dict[str, Any], source_patterns: list[str], target_patterns: list[str], **kwargs: Any
    ) -> dict[str, torch.Tensor]:
        """Return query, key and value weights under the target patterns."""
        (tensors,) = input_dict.values()
        fused = tensors[0] if isinstance(tensors, list) else tensors
        heads = fused.unflatten(0, (kwargs["config"].vision_config.num_attention_heads, 3, -1))
        parts = (part.flatten(0, 1).contiguous() for part in heads.unbind(1))
        return dict(zip(target_patterns, parts, strict=True))


_BLOCK, _NATIVE_BLOCK = r"^transformer\.h\.(\d+)\.", r"language_model.model.layers.\1."
_VISION, _NATIVE_VISION = r"^transformer\.visual\.transformer\.resblocks\.(\d+)\.", r"visual.encoder.layers.\1."
_RENAMED = {
    rf"{_BLOCK}ln_1\.": f"{_NATIVE_BLOCK}input_layernorm.",
    rf"{_BLOCK}ln_2\.": f"{_NATIVE_BLOCK}post_attention_layernorm.",
    rf"{_BLOCK}attn\.c_attn\.": f"{_NATIVE_BLOCK}self_attn.c_attn.",
    rf"{_BLOCK}attn\.c_proj\.": f"{_NATIVE_BLOCK}self_attn.o_proj.",
    rf"{_BLOCK}mlp\.w1\.": f"{_NATIVE_BLOCK}mlp.up_proj.",
    rf"{_BLOCK}mlp\.w2\.": f"{_NATIVE_BLOCK}mlp.gate_proj.",
    rf"{_BLOCK}mlp\.c_proj\.": f"{_NATIVE_BLOCK}mlp.down_proj.",
    rf"{_VISION}ln_1\.": f"{_NATIVE_VISION}layer_norm1.",
    rf"{_VISION}ln_2\.": f"{_NATIVE_VISION}layer_norm2.",
    rf"{_VISION}attn\.in_proj\.": f"{_NATIVE_VISION}self_attn.in_proj.",
    rf"{_VISION}attn\.out_proj\.": f"{_NATIVE_VISION}self_attn.out_proj.",
    rf"{_VISION}mlp\.c_fc\.": f"{_NATIVE_VISION}mlp.fc1.",
    rf"{_VISION}mlp\.c_proj\.": f"{_NATIVE_VISION}mlp.fc2.",
    r"^transformer\.visual\.": "visual.",
    r"^transformer\.wte\.": "language_model.model.embed_tokens.",
    r"^transformer\.ln_f\.": "language_model.model.norm.",
    r"^lm_head\.": "language_model.lm_head.",
}


def _split(source: str, kind: str, operation: ConversionOps) -> WeightConverter:
    return WeightConverter(f"{source}.{kind}", [f".self_attn.{part}_proj.{kind}" for part in "qkv"], [operation])


register_checkpoint_conversion_mapping(
    QwenVL.__name__,
    [
        *(WeightRenaming(source, target) for source, target in _RENAMED.items()),
        *(_split(".self_attn.c_attn", kind, Chunk(dim=0)) for kind in ("weight", "bias")),
        *(_split(".self_attn.in_proj", kind, SplitHeads()) for kind in ("weight", "bias")),
    ],
)


def translate_config(original: dict[str, Any]) -> QwenVLConfig:
    """Return the native configuration; raises LoadError for a checkpoint that can't be served."""
    for name, served in _SERVED.items():
        if original.get(name) != served:
            raise LoadError(f"the checkpoint has {name}={original.get(name)}; Qwen-VL is served with {served}")
    return QwenVLConfig(
        text_config=_translate_text(original),
        vision_config=_translate_vision(original["visual"]),
        tie_word_embeddings=False,
    )


def _translate_text(original: dict[str, Any]) -> Qwen2Config:
    return Qwen2Config(
        **{name: original[name] for name in ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads")},
        num_key_value_heads=original["num_attention_heads"],
        head_dim=original["kv_channels"],
        intermediate_size=original["intermediate_size"] // 2,  # the original counts both branches
        max_position_embeddings=original["max_position_embeddings"],
        rms_norm_eps=original["layer_norm_epsilon"],
        rope_parameters={"rope_type": "default", "rope_theta": float(original["rotary_emb_base"])},
        tie_word_embeddings=False,
        **{name: original[name] for name in ("seq_length", "use_dynamic_ntk", "use_logn_attn")},
    )


def _translate_vision(original: dict[str, Any]) -> CLIPVisionConfig:
    return CLIPVisionConfig(
        hidden_size=original["width"],
        intermediate_size=int(original["width"] * original["mlp_ratio"]),
        num_hidden_layers=original["layers"],
        num_attention_heads=original["heads"],
        image_size=original["image_size"],
        patch_size=original["patch_size"],
        hidden_act="gelu",
        layer_norm_eps=1e-6,
    )
