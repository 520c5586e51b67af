"""MiniCPM-V's original configuration in native terms."""

from typing import Any

from transformers import AutoConfig, LlamaConfig, PretrainedConfig, Qwen2Config
from transformers.models.idefics2.configuration_idefics2 import Idefics2VisionConfig

_TEXT_FIELDS = {
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
    *("num_key_value_heads", "hidden_act", "max_position_embeddings", "rms_norm_eps", "tie_word_embeddings"),
    *("rope_theta", "rope_scaling", "attention_bias", "sliding_window", "use_sliding_window", "max_window_layers"),
    *("bos_token_id", "eos_token_id", "pad_token_id"),
}
_VISION_FIELDS = {
    *("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "image_size", "patch_size"),
}
"""Named the same in the original; the rest of a saved configuration says nothing of the weights."""


class MiniCPMVConfig(PretrainedConfig):  # type: ignore[misc]  # transformers is untyped
    """Both language models and the one vision tower; made by `translate_config` only."""

    model_type = "minicpmv"
    sub_configs = {"text_config": AutoConfig, "vision_config": Idefics2VisionConfig}  # noqa: RUF012  # transformers' way

    text_config: Any = None
    vision_config: Any = None
    query_num: int = 64
    """Tokens a tile stands for."""
    image_token_id: int = 0
    has_flat_positions: bool = False
    """Whether the tower takes a tile for one line of patches, as in 2.5, instead of a rectangle."""


def translate_config(original: dict[str, Any], image_token_id: int) -> MiniCPMVConfig:
    """Return the native configuration of either version."""
    is_first = str(original["version"]) == "2.5"
    text = {name: original[name] for name in _TEXT_FIELDS & original.keys() if original[name] is not None}
    vision = {name: original["vision_config"][name] for name in _VISION_FIELDS & original["vision_config"].keys()}
    vision["num_hidden_layers"] -= bool(original.get("drop_vision_last_layer"))
    return MiniCPMVConfig(
        text_config=(LlamaConfig if is_first else Qwen2Config)(**text),
        vision_config=Idefics2VisionConfig(**vision),
        query_num=original["query_num"],
        image_token_id=image_token_id,
        has_flat_positions=is_first,
        tie_word_embeddings=text.get("tie_word_embeddings", False),
    )
