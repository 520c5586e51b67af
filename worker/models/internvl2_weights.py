"""InternVL2's original checkpoint as native classes: its configuration translated, its weights renamed on load."""

from typing import Any

import torch
from transformers import (
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLVisionConfig,
    LlamaConfig,
    Phi3Config,
    PretrainedConfig,
    Qwen2Config,
)
from transformers.conversion_mapping import register_checkpoint_conversion_mapping
from transformers.core_model_loading import Chunk, ConversionOps, WeightConverter, WeightRenaming

from worker.models.device import Placement
from worker.models.family import LoadError
from worker.models.native import build_native
from worker.models.weights import CountedWeights

_TEXT_CONFIGS: dict[str, type[PretrainedConfig]] = {
    "InternLM2ForCausalLM": LlamaConfig,  # the same arithmetic under other names
    "LlamaForCausalLM": LlamaConfig,
    "Phi3ForCausalLM": Phi3Config,
    "Qwen2ForCausalLM": Qwen2Config,
}
_TEXT_FIELDS = {
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
    *("num_key_value_heads", "head_dim", "hidden_act", "max_position_embeddings", "original_max_position_embeddings"),
    *("rms_norm_eps", "tie_word_embeddings", "rope_theta", "rope_scaling", "attention_bias", "mlp_bias"),
    *("sliding_window", "use_sliding_window", "max_window_layers", "bos_token_id", "eos_token_id", "pad_token_id"),
}
_VISION_FIELDS = {
    *("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_channels"),
    *("image_size", "patch_size", "hidden_act", "norm_type", "layer_norm_eps"),
}
"""Named the same in the original; the rest of a saved configuration says nothing of the weights."""


class InternVL2ForConditionalGeneration(InternVLForConditionalGeneration):  # type: ignore[misc]  # untyped
    """The native model under a name of its own, by which its conversions are found."""


class SplitGroupedQkv(ConversionOps):  # type: ignore[misc]  # transformers is untyped
    """InternLM2's fused rows: for each key head its query heads, the key head, the value head."""

    def convert(
        self, input_dict: dict[str, Any], source_patterns: list[str], target_patterns: list[str], **kwargs: Any
    ) -> dict[str, torch.Tensor]:
        """Return query, key and value weights under the target patterns."""
        (tensors,) = input_dict.values()
        fused = tensors[0] if isinstance(tensors, list) else tensors
        text = kwargs["config"].get_text_config()
        groups = text.num_attention_heads // text.num_key_value_heads
        heads = fused.unflatten(0, (text.num_key_value_heads, groups + 2, text.head_dim))
        parts = heads.split([groups, 1, 1], dim=1)
        return dict(zip(target_patterns, (part.flatten(0, 2).contiguous() for part in parts), strict=True))


_VISION = "model.vision_tower."
_RENAMED = {
    r"^vision_model\.encoder\.layers\.": f"{_VISION}encoder.layer.",
    r"^vision_model\.embeddings\.class_embedding": f"{_VISION}embeddings.cls_token",
    r"^vision_model\.embeddings\.position_embedding": f"{_VISION}embeddings.position_embeddings",
    r"^vision_model\.embeddings\.patch_embedding\.": f"{_VISION}embeddings.patch_embeddings.projection.",
    r"\.ls(1|2)$": r".lambda_\1",
    r"\.norm1\.": ".layernorm_before.",
    r"\.norm2\.": ".layernorm_after.",
    r"\.attn\.proj\.": ".attention.projection_layer.",
    r"\.attn\.(q|k)_norm\.": r".attention.\1_norm.",
    r"^mlp1\.0\.": "model.multi_modal_projector.layer_norm.",
    r"^mlp1\.1\.": "model.multi_modal_projector.linear_1.",
    r"^mlp1\.3\.": "model.multi_modal_projector.linear_2.",
    r"^language_model\.(?:output|lm_head)\.": "lm_head.",
    r"^language_model\.model\.tok_embeddings\.": "model.language_model.embed_tokens.",
    r"^language_model\.model\.": "model.language_model.",
    r"\.attention\.wo\.": ".self_attn.o_proj.",
    r"\.feed_forward\.w1\.": ".mlp.gate_proj.",
    r"\.feed_forward\.w2\.": ".mlp.down_proj.",
    r"\.feed_forward\.w3\.": ".mlp.up_proj.",
    r"\.attention_norm\.": ".input_layernorm.",
    r"\.ffn_norm\.": ".post_attention_layernorm.",
}


def _split(source: str, prefix: str, kind: str, operation: ConversionOps) -> WeightConverter:
    return WeightConverter(f"{source}.{kind}", [f"{prefix}.{part}_proj.{kind}" for part in "qkv"], [operation])


register_checkpoint_conversion_mapping(
    InternVL2ForConditionalGeneration.__name__,
    [
        *(WeightRenaming(source, target) for source, target in _RENAMED.items()),
        _split(".attn.qkv", ".attention", "weight", Chunk(dim=0)),
        _split(".attn.qkv", ".attention", "bias", Chunk(dim=0)),
        _split(".attention.wqkv", ".self_attn", "weight", SplitGroupedQkv()),
        _split(".attention.wqkv", ".self_attn", "bias", SplitGroupedQkv()),
    ],
)


def translate_config(original: dict[str, Any], image_token_id: int) -> InternVLConfig:
    """Return the native configuration; raises LoadError for a language model that has no native class."""
    if original.get("ps_version") != "v2":
        raise LoadError("InternVL checkpoints with another pixel shuffle than v2 can't be served")
    vision, text = _translate_vision(original["vision_config"]), _translate_text(original["llm_config"])
    size = original.get("force_image_size") or original["vision_config"]["image_size"]
    ratio = original["downsample_ratio"]
    return InternVLConfig(
        vision_config=vision,
        text_config=text,
        image_token_id=image_token_id,
        image_seq_length=int((size // original["vision_config"]["patch_size"] * ratio) ** 2),
        downsample_ratio=ratio,
        vision_feature_layer=original.get("select_layer", -1),
        tie_word_embeddings=text.tie_word_embeddings,
    )


def _translate_vision(original: dict[str, Any]) -> InternVLVisionConfig:
    return InternVLVisionConfig(
        attention_bias=original["qkv_bias"],
        use_qk_norm=original["qk_normalization"],
        **{name: original[name] for name in _VISION_FIELDS & original.keys()},
    )


def _translate_text(original: dict[str, Any]) -> PretrainedConfig:
    architecture = (original.get("architectures") or ["none"])[0]
    if (config_class := _TEXT_CONFIGS.get(architecture)) is None:
        known = ", ".join(_TEXT_CONFIGS)
        raise LoadError(f"the checkpoint's language model is {architecture}; InternVL2 is served with {known}")
    fields = {name: original[name] for name in _TEXT_FIELDS & original.keys() if original[name] is not None}
    if architecture == "InternLM2ForCausalLM":
        fields["attention_bias"] = original.get("bias", False)
    if (scaling := fields.get("rope_scaling", {})).get("type") == "su":  # Phi 3's first name for it
        fields["rope_scaling"] = scaling | {"type": "longrope"}
    return config_class(**fields)


def build_model(config: InternVLConfig, weights: CountedWeights, placement: Placement) -> Any:
    """Return the native model in evaluation mode; raises LoadError unless every parameter is there."""
    return build_native(InternVL2ForConditionalGeneration, config, weights, placement)
