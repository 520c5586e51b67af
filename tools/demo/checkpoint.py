"""Writes the network in InternVL2's original layout, and reads it back as a worker does."""

import json
import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from tools.demo.network import original_config
from worker.models.device import Placement
from worker.models.internvl2_weights import build_model, translate_config
from worker.models.vocabulary import Vocabulary
from worker.models.weights import open_weights

_RENAMED = (
    (r"^model\.vision_tower\.encoder\.layer\.", "vision_model.encoder.layers."),
    (r"^model\.vision_tower\.embeddings\.cls_token", "vision_model.embeddings.class_embedding"),
    (r"^model\.vision_tower\.embeddings\.position_embeddings", "vision_model.embeddings.position_embedding"),
    (r"^model\.vision_tower\.embeddings\.patch_embeddings\.projection", "vision_model.embeddings.patch_embedding"),
    (r"\.lambda_(1|2)$", r".ls\1"),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.attention\.projection_layer\.", ".attn.proj."),
    (r"\.attention\.qkv\.", ".attn.qkv."),
    (r"^model\.multi_modal_projector\.layer_norm\.", "mlp1.0."),
    (r"^model\.multi_modal_projector\.linear_1\.", "mlp1.1."),
    (r"^model\.multi_modal_projector\.linear_2\.", "mlp1.3."),
    (r"^lm_head\.", "language_model.output."),
    (r"^model\.language_model\.embed_tokens\.", "language_model.model.tok_embeddings."),
    (r"^model\.language_model\.", "language_model.model."),
    (r"\.self_attn\.wqkv\.", ".attention.wqkv."),
    (r"\.self_attn\.o_proj\.", ".attention.wo."),
    (r"\.mlp\.gate_proj\.", ".feed_forward.w1."),
    (r"\.mlp\.down_proj\.", ".feed_forward.w2."),
    (r"\.mlp\.up_proj\.", ".feed_forward.w3."),
    (r"\.input_layernorm\.", ".attention_norm."),
    (r"\.post_attention_layernorm\.", ".ffn_norm."),
)
_THIRD = re.compile(r"(?P<block>.+)\.(?P<part>[qkv])_proj\.(?P<kind>weight|bias)")


def write_checkpoint(directory: Path, network: Any) -> None:
    """Write weights in float16 and the configuration; the tokenizer's files are written by `write_tokenizer`."""
    config = original_config(network.config.text_config.vocab_size)
    (directory / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    (directory / "generation_config.json").write_text('{\n  "do_sample": false\n}\n', encoding="utf-8")
    weights = original_weights(network)
    halves = {name: weight.half().contiguous() for name, weight in weights.items()}
    save_file(halves, directory / "model.safetensors", metadata={"format": "pt"})


def read_checkpoint(directory: Path, vocabulary: Vocabulary, adapter: Path | None = None) -> Any:
    """Return the network as a worker without a GPU loads it, in float32, changed by an adapter if there is one."""
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    native = translate_config(config, vocabulary.control_ids["<IMG_CONTEXT>"])
    weights = open_weights(directory, adapter, lambda _: None)
    return build_model(native, weights, Placement((torch.device("cpu"),), torch.float32))


def original_weights(network: Any) -> dict[str, torch.Tensor]:
    """Return the weights under InternVL2's names, queries, keys and values fused as it fuses them."""
    weights: dict[str, torch.Tensor] = {}
    thirds: dict[tuple[str, str], dict[str, torch.Tensor]] = {}
    for name, weight in network.state_dict().items():
        if match := _THIRD.fullmatch(name):
            thirds.setdefault((match["block"], match["kind"]), {})[match["part"]] = weight
        else:
            weights[name] = weight
    for (block, kind), parts in thirds.items():
        q, k, v = (parts[part] for part in "qkv")
        if block.endswith("self_attn"):
            weights[f"{block}.wqkv.{kind}"] = _by_head(q, k, v, network.config.text_config)
        else:
            weights[f"{block}.qkv.{kind}"] = torch.cat([q, k, v])
    return {_rename(name): weight for name, weight in weights.items()}


def _by_head(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, config: Any) -> torch.Tensor:
    """Return, for each key head, its query heads' rows, its own and its value head's."""
    num_groups = config.num_key_value_heads
    groups = [part.reshape(num_groups, -1, *part.shape[1:]) for part in (q, k, v)]
    return torch.cat(groups, dim=1).flatten(0, 1)


def _rename(name: str) -> str:
    for pattern, original in _RENAMED:
        name = re.sub(pattern, original, name)
    return name
