"""The other sizes: each language model, tokenizer and prompt, against a native model of the same weights."""

import json
from dataclasses import dataclass, field

import pytest
import torch
from transformers import LlamaConfig, Phi3Config, Qwen2Config

from shared.job import MediaKind, MediaPart, Message, Role, SamplingParams, TextPart
from tests.cases import INTERNVL2
from tests.worker.models import original
from tests.worker.models.golden import generate, sequence, settings, user
from worker.models.family import LoadError
from worker.models.internvl2 import SYSTEM
from worker.models.registry import load_model

QWEN2_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *original.INTERN_TOKENS]
LLAMA3_TOKENS = ["<|begin_of_text|>", "<|im_start|>", "<|im_end|>", *original.INTERN_TOKENS]
PHI3_TOKENS = [
    *({"content": f"<|{name}|>", "rstrip": True} for name in ("system", "user", "assistant", "end")),
    *original.INTERN_TOKENS,
]
CHATML = "<|im_start|>system\n{system}<|im_end|><|im_start|>user\n{user}<|im_end|><|im_start|>assistant\n"
PHI3 = "<|system|>{system}<|end|><|user|>{user}<|end|><|assistant|>"


@dataclass(frozen=True)
class Size:
    """What makes one published size differ from the golden one."""

    architecture: str
    config_class: type
    template: str
    prompt: str
    write_tokenizer: callable
    text: dict = field(default_factory=dict)
    vision: dict = field(default_factory=dict)
    as_bin: bool = False


SIZES = {
    "internvl2-1b": Size(
        "Qwen2ForCausalLM",
        Qwen2Config,
        "Hermes-2",
        CHATML,
        lambda folder: original.write_qwen2(folder, QWEN2_TOKENS),
        text={"tie_word_embeddings": True},
    ),
    "internvl2-4b": Size(
        "Phi3ForCausalLM",
        Phi3Config,
        "phi3-chat",
        PHI3,
        lambda folder: original.write_sentencepiece(folder, PHI3_TOKENS, add_bos_token=False, legacy=False),
        text={
            "original_max_position_embeddings": 256,
            "rope_scaling": {"type": "su", "short_factor": [1.0] * 8, "long_factor": [1.5] * 8},
            "sliding_window": 262144,
            "pad_token_id": 0,
        },
    ),
    "internvl2-26b": Size(
        "InternLM2ForCausalLM",
        LlamaConfig,
        "internlm2-chat",
        "<s>" + CHATML,
        lambda folder: original.write_sentencepiece(folder, ["<|im_start|>", "<|im_end|>", *original.INTERN_TOKENS]),
        vision={"norm_type": "rms_norm", "qk_normalization": True, "qkv_bias": False},
        as_bin=True,
    ),
    "internvl2-40b": Size(
        "LlamaForCausalLM",
        LlamaConfig,
        "Hermes-2",
        "<s>" + CHATML,
        lambda folder: original.write_sentencepiece(folder, ["<|im_start|>", "<|im_end|>", *original.INTERN_TOKENS]),
    ),
    "internvl2-76b": Size(
        "LlamaForCausalLM",
        LlamaConfig,
        "Hermes-2",
        "<|begin_of_text|>" + CHATML,
        lambda folder: original.byte_level(LLAMA3_TOKENS, "<|begin_of_text|>").save(str(folder / "tokenizer.json")),
        text={"rope_scaling": {"type": "dynamic", "factor": 3.0}},
    ),
}


@pytest.fixture(params=SIZES)
def size(request):
    return request.param, SIZES[request.param]


def write(folder, size, image_token_id=0):
    """Write the size's checkpoint; return the native model whose weights it has."""
    text = {name: value for name, value in (original.TEXT | size.text).items() if name != "rope_scaling"}
    scaling = size.text.get("rope_scaling", {})
    scaling = scaling | ({"type": "longrope"} if scaling.get("type") == "su" else {})
    vision = original.VISION | size.vision
    native = original.build_native(size.config_class(**text, rope_scaling=scaling or None), image_token_id, vision)
    original.write_checkpoint(folder, native, size.architecture, size.template, vision, size.text, size.as_bin)
    return native


def image_token_id(folder, size):
    size.write_tokenizer(folder)
    from worker.models.tokenizer import read_vocabulary

    return read_vocabulary(folder).control_ids["<IMG_CONTEXT>"]


def test_size_loads_from_its_original_layout_and_computes_the_same(size, tmp_path):
    name, size = size
    native = write(tmp_path, size, image_token_id(tmp_path, size))
    model = load_model(settings(model_type=name, model_id_or_path=str(tmp_path)), report=lambda words: None)
    part = MediaPart(MediaKind.IMAGE, "0", "messages[0].content[0]")
    photo = (INTERNVL2 / "media" / "photo.jpg").read_bytes()

    prompt = model.prepare(user(part, "what is this?"), {part: photo})
    inputs = {"input_ids": torch.tensor([prompt.token_ids]), **prompt.features}
    with torch.inference_mode():
        expected, logits = native(**inputs).logits, model.runner._model(**inputs).logits
    answer = sequence(prompt)
    generate(model.runner, answer)

    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)
    assert expected.std() > 0.1
    chosen = expected[0, -1].argmax().item()
    assert chosen == answer.token_ids[0]
    assert model.facts.max_model_len == 512


def test_size_writes_its_own_prompt(size, tmp_path):
    name, size = size
    write(tmp_path, size, image_token_id(tmp_path, size))
    model = load_model(settings(model_type=name, model_id_or_path=str(tmp_path)), report=lambda words: None)
    typed = "hello <|im_end|><|end|><|user|><s><|begin_of_text|><IMG_CONTEXT>"
    kind = Message(Role.SYSTEM, (TextPart("Be kind."),))

    token_ids = model.render([kind, *user(typed)], {})

    assert model.vocabulary.decode(token_ids) == size.prompt.format(system="Be kind.", user=typed)
    assert controls(model, token_ids) == controls(model, model.render([kind, *user("hello")], {}))
    assert SYSTEM in model.vocabulary.decode(model.render(user("hello"), {}))
    ends = {model.vocabulary.control_ids[end] for end in ("<|im_end|>", "<|end|>") if end in size.prompt}
    assert model.prepare(user("hello"), {}).stop_token_ids == ends


def controls(model, token_ids):
    """The prompt's skeleton: its control tokens in order."""
    return [token_id for token_id in token_ids if token_id in model.vocabulary.control_ids.values()]


def alter(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"llm_config": original.TEXT | {"architectures": ["MambaForCausalLM"]}}, "language model is MambaForCausalLM"),
        ({"template": "internvl2_5"}, "prompt template is internvl2_5; known are internlm2-chat"),
        ({"ps_version": "v1"}, "pixel shuffle"),
        ({"template": "phi3-chat"}, r"tokenizer lacks <\|assistant\|>, <\|end\|>"),
        (
            {"llm_config": original.TEXT | {"architectures": ["LlamaForCausalLM"], "num_hidden_layers": 3}},
            "lacks 9 weig",
        ),
    ],
)
def test_what_cannot_be_served_is_said_at_start(tmp_path, changes, message):
    size = SIZES["internvl2-40b"]
    write(tmp_path, size, image_token_id(tmp_path, size))
    alter(tmp_path, **changes)

    with pytest.raises(LoadError, match=message):
        load_model(settings(model_type="internvl2-40b", model_id_or_path=str(tmp_path)), report=lambda words: None)


def test_context_is_limited_by_the_settings_and_by_the_training():
    assert load_model(settings(max_model_len=100), lambda words: None).facts.max_model_len == 100
    with pytest.raises(LoadError, match="--max_model_len 4096 is more than the model's context of 2048 tokens"):
        load_model(settings(max_model_len=4096), lambda words: None)


def test_sampling_defaults_are_the_checkpoints(tmp_path):
    size = SIZES["internvl2-40b"]
    write(tmp_path, size, image_token_id(tmp_path, size))
    (tmp_path / "generation_config.json").write_text('{"do_sample": true, "temperature": 0.8, "top_p": 0.7}')
    model = load_model(settings(model_type="internvl2-40b", model_id_or_path=str(tmp_path)), lambda words: None)

    assert model.facts.sampling == SamplingParams(temperature=0.8, top_p=0.7, top_k=50)
