"""InternVL2-2B with random weights, in full and at the smallest size, from the numbers of its original config.json."""

from collections.abc import Sequence as Ids
from dataclasses import dataclass
from typing import Any

import torch
import transformers

import worker.models.companions  # noqa: F401  before transformers imports what it needs
from shared.job import SamplingParams
from worker.engine.prompt import Prompt
from worker.engine.sequence import Sequence
from worker.models.internvl2_weights import InternVL2ForConditionalGeneration, translate_config

IMAGE = 7
"""The placeholder's id."""


@dataclass(frozen=True)
class Size:
    """One network, and how much is asked of it."""

    name: str
    text: dict[str, Any]
    vision: dict[str, Any]
    rows: tuple[int, ...]
    prompt_length: int
    num_steps: int
    num_read_tokens: int
    """Length of the prompt that reading is timed with."""
    copied_bytes: int
    """What the memory's bandwidth is measured with."""
    matrix_side: int
    """What the ceiling of matrix products is measured with."""


FULL = Size(
    "InternVL2-2B",
    {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 24, "num_attention_heads": 16,
     "num_key_value_heads": 8, "vocab_size": 92_553},
    {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16},
    rows=(1, 8, 32, 64), prompt_length=512, num_steps=128, num_read_tokens=2048, copied_bytes=2**31, matrix_side=8192,
)  # fmt: skip
TINY = Size(
    "InternVL2 of 0.2 million parameters",
    {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
     "num_key_value_heads": 2, "vocab_size": 500},
    {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 1, "num_attention_heads": 4},
    rows=(1, 2), prompt_length=24, num_steps=8, num_read_tokens=64, copied_bytes=2**20, matrix_side=64,
)  # fmt: skip


class Silence:
    """Reads answers as nothing."""

    def decode(self, token_ids: Ids[int]) -> str:
        """Return nothing."""
        return ""


def build_network(size: Size, device: torch.device, dtype: torch.dtype) -> Any:
    """Return the whole model, whose answers never end by themselves."""
    config = translate_config(_original(size), IMAGE)
    with torch.device(device):
        return InternVL2ForConditionalGeneration._from_config(config, dtype=dtype).eval()


def build_language(network: Any) -> Any:
    """Return a model of text alone that is made of the same language model, for those who take no other."""
    config = network.config.text_config
    with torch.device("meta"):
        language = transformers.LlamaForCausalLM(config)
    language.model, language.lm_head = network.model.language_model, network.lm_head
    return language.eval()


def ask(size: Size, index: int, max_tokens: int, length: int | None = None) -> Sequence:
    """Return a request of random words, different for each index."""
    dice = torch.Generator().manual_seed(index)
    token_ids = torch.randint(100, size.text["vocab_size"], (length or size.prompt_length,), generator=dice).tolist()
    return Sequence(f"{index}", Prompt(token_ids=tuple(token_ids), tokenizer=Silence()), SamplingParams(), max_tokens)


def _original(size: Size) -> dict[str, Any]:
    more = {
        "architectures": ["InternLM2ForCausalLM"], "hidden_act": "silu", "rms_norm_eps": 1e-5, "rope_theta": 1e6,
        "rope_scaling": {"type": "dynamic", "factor": 2.0}, "max_position_embeddings": 32_768, "bias": False,
        "tie_word_embeddings": False,
    }  # fmt: skip
    eyes = {
        "image_size": 448, "patch_size": 14, "hidden_act": "gelu", "norm_type": "layer_norm", "layer_norm_eps": 1e-6,
        "qkv_bias": True, "qk_normalization": False,
    }  # fmt: skip
    return {
        "ps_version": "v2", "force_image_size": 448, "downsample_ratio": 0.5, "select_layer": -1,
        "llm_config": size.text | more, "vision_config": size.vision | eyes,
    }  # fmt: skip
