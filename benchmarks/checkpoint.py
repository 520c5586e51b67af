"""Vision models with random weights in the Llava layout, which Baton and its peers all serve."""

import sysconfig
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

NUM_WORDS = 2000
MODEL_LEN = 2048
IMAGE_SIDE, PATCH = 112, 14
CONTROLS = ("<pad>", "<s>", "</s>", "<image>")
CHAT_TEMPLATE = """{% for message in messages %}{{ 'USER: ' if message.role == 'user' else 'ASSISTANT: ' }}\
{% if message.content is string %}{{ message.content }}{% else %}{% for part in message.content %}\
{% if part.type == 'image' %}<image>
{% else %}{{ part.text }}{% endif %}{% endfor %}{% endif %} {% endfor %}\
{% if add_generation_prompt %}ASSISTANT:{% endif %}"""


@dataclass(frozen=True)
class Shape:
    """A language model of so many layers and so much width; the vision tower is always the same small one."""

    name: str
    hidden_size: int
    intermediate_size: int
    num_layers: int


SHAPES = (Shape("1M", 128, 256, 4), Shape("80M", 640, 1728, 16))


def checkpoint(shape: Shape, cache: Path) -> Path:
    """Return the directory of a model of this shape, written if it isn't there yet."""
    directory = cache / f"llava-{shape.name}"
    if not (directory / "processor_config.json").is_file():  # written last
        _write(shape, directory)
    return directory


def _write(shape: Shape, directory: Path) -> None:
    import torch

    import worker.models.companions  # noqa: F401  before transformers imports what it needs

    import transformers as t  # isort: skip

    torch.manual_seed(0)
    words = _tokenizer(t)
    model = t.LlavaForConditionalGeneration(_config(t, shape, len(words)))
    with torch.no_grad():  # a logit of 0 is never the highest: answers have their full length
        model.lm_head.weight[CONTROLS.index("</s>")] = 0
    ids = {"eos_token_id": CONTROLS.index("</s>"), "pad_token_id": 0, "bos_token_id": 1}
    model.generation_config = t.GenerationConfig(**ids)
    model.save_pretrained(directory)
    side = {"height": IMAGE_SIDE, "width": IMAGE_SIDE}
    t.LlavaProcessor(
        t.CLIPImageProcessor(size={"shortest_edge": IMAGE_SIDE}, crop_size=side),
        words,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    ).save_pretrained(directory)


def _config(t: Any, shape: Shape, vocab_size: int) -> Any:
    text = t.LlamaConfig(
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        num_hidden_layers=shape.num_layers,
        num_attention_heads=shape.hidden_size // 32,
        num_key_value_heads=shape.hidden_size // 64,
        max_position_embeddings=MODEL_LEN,
        vocab_size=vocab_size,
        tie_word_embeddings=False,
    )
    vision = t.CLIPVisionConfig(
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        image_size=IMAGE_SIDE,
        patch_size=PATCH,
        projection_dim=64,
    )
    return t.LlavaConfig(
        text_config=text,
        vision_config=vision,
        image_token_index=CONTROLS.index("<image>"),
        image_seq_length=(IMAGE_SIDE // PATCH) ** 2,
        vision_feature_layer=-1,
    )


def _tokenizer(t: Any) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=NUM_WORDS,
        special_tokens=list(CONTROLS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    sources = islice(sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")), 40)
    backend.train_from_iterator((source.read_text("utf-8") for source in sources), trainer)
    return t.PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        chat_template=CHAT_TEMPLATE,
        extra_special_tokens={"image_token": "<image>"},
    )
