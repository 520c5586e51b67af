"""Writes tiny random checkpoints in InternVL2's original layout, for the sizes that have no golden set."""

import json
import shutil

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import InternVLConfig, InternVLForConditionalGeneration, InternVLVisionConfig

from tests.cases import INTERNVL2

TEXT = {
    "vocab_size": 800,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
}
VISION = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 56,
    "patch_size": 14,
    "num_channels": 3,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-6,
    "norm_type": "layer_norm",
    "qkv_bias": True,
    "qk_normalization": False,
}
INTERN_TOKENS = ["<img>", "</img>", "<IMG_CONTEXT>", "<quad>", "</quad>", "<ref>", "</ref>", "<box>", "</box>"]
_RENAMED = (
    ("model.language_model.", "language_model.model."),
    ("lm_head.", "language_model.lm_head."),
    ("model.multi_modal_projector.layer_norm.", "mlp1.0."),
    ("model.multi_modal_projector.linear_1.", "mlp1.1."),
    ("model.multi_modal_projector.linear_2.", "mlp1.3."),
    ("model.vision_tower.encoder.layer.", "vision_model.encoder.layers."),
    ("model.vision_tower.", "vision_model."),
    ("embeddings.cls_token", "embeddings.class_embedding"),
    ("embeddings.position_embeddings", "embeddings.position_embedding"),
    ("embeddings.patch_embeddings.projection.", "embeddings.patch_embedding."),
    (".lambda_", ".ls"),
    (".layernorm_before.", ".norm1."),
    (".layernorm_after.", ".norm2."),
    (".attention.projection_layer.", ".attn.proj."),
    (".attention.", ".attn."),
)
_INTERNLM2 = (
    ("language_model.lm_head.", "language_model.output."),
    (".embed_tokens.", ".tok_embeddings."),
    (".self_attn.o_proj.", ".attention.wo."),
    (".mlp.gate_proj.", ".feed_forward.w1."),
    (".mlp.down_proj.", ".feed_forward.w2."),
    (".mlp.up_proj.", ".feed_forward.w3."),
    (".input_layernorm.", ".attention_norm."),
    (".post_attention_layernorm.", ".ffn_norm."),
)


def build_native(text_config, image_token_id, vision):
    """A native model with random weights large enough that any mix-up shows."""
    torch.manual_seed(0)
    native = {name: vision[name] for name in vision if not name.startswith("qk")}
    vision_config = InternVLVisionConfig(
        **native, attention_bias=vision["qkv_bias"], use_qk_norm=vision["qk_normalization"]
    )
    config = InternVLConfig(
        vision_config=vision_config,
        text_config=text_config,
        image_token_id=image_token_id,
        image_seq_length=4,
        tie_word_embeddings=text_config.tie_word_embeddings,
    )
    model = InternVLForConditionalGeneration._from_config(config, attn_implementation="sdpa").eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def write_checkpoint(directory, native, architecture, template, vision, llm_config=None, as_bin=False):
    """Save the native model as its authors' code would."""
    directory.mkdir(exist_ok=True)
    weights = _fuse_vision({name: w.detach() for name, w in native.state_dict().items()})
    if architecture == "InternLM2ForCausalLM":
        weights = _fuse_internlm2(weights, native.config.text_config)
    if native.config.tie_word_embeddings:
        del weights["lm_head.weight"]
    renamed = _RENAMED + (_INTERNLM2 if architecture == "InternLM2ForCausalLM" else ())
    weights = {_rename(name, renamed): weight.contiguous() for name, weight in weights.items()}
    _write_bin(directory, weights) if as_bin else save_file(
        weights, directory / "model.safetensors", metadata={"format": "pt"}
    )
    config = json.loads((INTERNVL2 / "checkpoint" / "config.json").read_text("utf-8"))
    config |= {"template": template, "force_image_size": vision["image_size"], "vision_config": vision}
    config["llm_config"] = TEXT | {"architectures": [architecture]} | (llm_config or {})
    (directory / "config.json").write_text(json.dumps(config))


def write_sentencepiece(directory, added, **config):
    """The golden set's sentencepiece model with other control tokens behind it."""
    shutil.copy(INTERNVL2 / "checkpoint" / "tokenizer.model", directory)
    tokens = {index: {"content": token} for index, token in enumerate(("<unk>", "<s>", "</s>"))}
    tokens |= {770 + index: token for index, token in enumerate(added)}
    config |= {
        "added_tokens_decoder": {str(i): t if isinstance(t, dict) else {"content": t} for i, t in tokens.items()}
    }
    (directory / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<s>"} | config))


def byte_level(specials, bos=None):
    """A small byte-level tokenizer, as Qwen2's and Llama 3's are."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(["hello world, what is in this picture? you are a user"] * 5, trainer)
    tokenizer.add_special_tokens(specials)
    if bos is not None:
        token = (bos, tokenizer.token_to_id(bos))
        tokenizer.post_processor = processors.TemplateProcessing(single=f"{bos} $A", special_tokens=[token])
    return tokenizer


def write_qwen2(directory, specials):
    """A byte-level tokenizer in the files of the slow Qwen2 class."""
    tokenizer = byte_level(specials)
    tokenizer.model.save(str(directory))
    listed = {
        str(i): {"content": t.content, "special": True, "normalized": False, "lstrip": False, "rstrip": False}
        for i, t in tokenizer.get_added_tokens_decoder().items()
    }
    config = {"tokenizer_class": "Qwen2Tokenizer", "added_tokens_decoder": listed}
    (directory / "tokenizer_config.json").write_text(json.dumps(config))


def _rename(name, renamed):
    for native, original in renamed:
        if "language_model" not in name or native not in (".attention.",):
            name = name.replace(native, original)
    return name


def _fuse_vision(weights):
    """[all q; all k; all v], and the norms of q and k under their own names."""
    fused = {}
    for name, weight in weights.items():
        if ".attention.q_proj." in name:
            parts = [weights[name.replace("q_proj", f"{part}_proj")] for part in "qkv"]
            fused[name.replace("q_proj", "qkv")] = torch.cat(parts)
        elif ".attention.k_proj." not in name and ".attention.v_proj." not in name:
            fused[name] = weight
    return fused


def _fuse_internlm2(weights, config):
    """For each key head: its query heads, the key head, the value head."""
    fused = {}
    for name, weight in weights.items():
        if ".self_attn.q_proj." in name:
            query, key, value = (
                weights[name.replace("q_proj", f"{part}_proj")].view(config.num_key_value_heads, -1, weight.shape[-1])
                for part in "qkv"
            )
            joined = torch.cat([query, key, value], dim=1).flatten(0, 1)
            fused[name.replace(".self_attn.q_proj.", ".attention.wqkv.")] = joined
        elif ".self_attn.k_proj." not in name and ".self_attn.v_proj." not in name:
            fused[name] = weight
    return fused


def _write_bin(directory, weights):
    """Two shards and an index, as torch saves them."""
    names = sorted(weights)
    weight_map = {}
    for shard in range(2):
        file = f"pytorch_model-{shard + 1:05}-of-00002.bin"
        part = {name: weights[name].clone() for name in names[shard::2]}
        torch.save(part, directory / file)
        weight_map |= dict.fromkeys(part, file)
    (directory / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
