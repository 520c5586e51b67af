"""Tiny random checkpoints of native transformers classes, as people save their own."""

import torch
import transformers as t
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

import worker.models.companions  # noqa: F401  before transformers imports what it needs
from tests.worker.models.templates import LLAMA3, MISTRAL_LIST, MISTRAL_NAMED, TOOLS

CONTROLS = [
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>",
    "<|video_pad|>", "<IMG_CONTEXT>", "<image>", "<video>", "<img>", "</img>", "<|audio_bos|>", "<|AUDIO|>",
    "<|audio_eos|>", "<start_of_image>", "<end_of_image>", "<image_soft_token>",
]  # fmt: skip
TEXT = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": False,
}
PIXELS = {"patch_size": 14, "temporal_patch_size": 2, "merge_size": 2}
SIZE = {"shortest_edge": 28 * 28 * 4, "longest_edge": 28 * 28 * 64}
IMAGE = {"height": 56, "width": 56}

_TURNS = """{% for message in messages %}<|im_start|>{{ message.role }}
{% if message.content is string %}{{ message.content }}{% else %}{% for part in message.content -%}
{%- if part.type == 'image' %}IMAGE{% elif part.type == 'video' %}VIDEO{% elif part.type == 'audio' %}AUDIO
{%- else %}{{ part.text }}{% endif %}{% endfor %}{% endif %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""


def template(image="", video="", audio=""):
    return _TURNS.replace("IMAGE", image).replace("VIDEO", video).replace("AUDIO", audio)


QWEN = template("<|vision_start|><|image_pad|><|vision_end|>", "<|vision_start|><|video_pad|><|vision_end|>")


def tokenizer(chat_template, **named):
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=500, special_tokens=CONTROLS, initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(
        ["what is in this picture? say the words of the clip one by one. user assistant"], trainer
    )
    return t.PreTrainedTokenizerFast(
        tokenizer_object=backend,
        chat_template=chat_template,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens=named,
    )


def _id(token):
    return CONTROLS.index(token)


def qwen_processor(family, video_class, **pixels):
    pixels = PIXELS | pixels
    words = tokenizer(QWEN, image_token="<|image_pad|>", video_token="<|video_pad|>")
    return family(
        t.Qwen2VLImageProcessor(size=SIZE, **pixels), words, video_class(size=SIZE, **pixels), chat_template=QWEN
    )


QWEN_IDS = {
    "image_token_id": _id("<|image_pad|>"),
    "video_token_id": _id("<|video_pad|>"),
    "vision_start_token_id": _id("<|vision_start|>"),
    "vision_end_token_id": _id("<|vision_end|>"),
}


def _rope(section, **more):
    return {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": section, **more}}


def llama(vocab):
    words = tokenizer(template())
    return t.LlamaForCausalLM, t.LlamaConfig(**TEXT, vocab_size=vocab), words


def qwen2vl(vocab):
    vision = {"depth": 2, "embed_dim": 64, "hidden_size": 64, "num_heads": 4, "patch_size": 14}
    config = t.Qwen2VLConfig(
        text_config=TEXT | _rope([2, 3, 3]) | {"vocab_size": vocab}, vision_config=vision, **QWEN_IDS
    )
    return t.Qwen2VLForConditionalGeneration, config, qwen_processor(t.Qwen2VLProcessor, t.Qwen2VLVideoProcessor)


def qwen25vl(vocab):
    vision = {
        "depth": 2, "hidden_size": 64, "intermediate_size": 128, "num_heads": 4, "patch_size": 14,
        "out_hidden_size": 64, "fullatt_block_indexes": [1], "window_size": 56,
    }  # fmt: skip
    config = t.Qwen2_5_VLConfig(
        text_config=TEXT | _rope([2, 3, 3]) | {"vocab_size": vocab}, vision_config=vision, **QWEN_IDS
    )
    return t.Qwen2_5_VLForConditionalGeneration, config, qwen_processor(t.Qwen2_5_VLProcessor, t.Qwen2VLVideoProcessor)


def _vision3(**more):
    return {
        "depth": 3, "hidden_size": 64, "intermediate_size": 128, "num_heads": 4, "patch_size": 16,
        "out_hidden_size": 64, "num_position_embeddings": 256, **more,
    }  # fmt: skip


def _processor3():
    size = {"shortest_edge": 32 * 32 * 4, "longest_edge": 32 * 32 * 64}
    words = tokenizer(template(QWEN_IMAGE, "<|video_pad|>"), image_token="<|image_pad|>", video_token="<|video_pad|>")
    pixels = {"size": size, "patch_size": 16, "temporal_patch_size": 2, "merge_size": 2}
    return t.Qwen3VLProcessor(
        t.Qwen2VLImageProcessor(**pixels), words, t.Qwen3VLVideoProcessor(**pixels), chat_template=words.chat_template
    )


QWEN_IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"


def qwen3vl(vocab):
    text = TEXT | {"head_dim": 32, "vocab_size": vocab} | _rope([6, 5, 5], mrope_interleaved=True)
    config = t.Qwen3VLConfig(text_config=text, vision_config=_vision3(deepstack_visual_indexes=[0, 1]), **QWEN_IDS)
    return t.Qwen3VLForConditionalGeneration, config, _processor3()


def qwen35(vocab):
    text = TEXT | {
        "vocab_size": vocab, "head_dim": 32, "layer_types": ["linear_attention", "full_attention"] * 2,
        "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 16, "linear_value_head_dim": 16,
    }  # fmt: skip
    text |= _rope([2, 1, 1], mrope_interleaved=True, partial_rotary_factor=0.25)
    config = t.Qwen3_5Config(text_config=text, vision_config=_vision3(), **QWEN_IDS)
    return t.Qwen3_5ForConditionalGeneration, config, _processor3()


def internvl(vocab):
    chat = template("<IMG_CONTEXT>", "<video>")
    words = tokenizer(
        chat,
        start_image_token="<img>",
        end_image_token="</img>",
        context_image_token="<IMG_CONTEXT>",
        video_token="<video>",
    )
    pixels = t.GotOcr2ImageProcessor(size=IMAGE, crop_to_patches=True, min_patches=1, max_patches=4)
    vision = {
        "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
        "image_size": [56, 56], "patch_size": [14, 14],
    }  # fmt: skip
    config = t.InternVLConfig(
        text_config=t.Qwen2Config(**TEXT, vocab_size=vocab),
        vision_config=vision,
        image_token_id=_id("<IMG_CONTEXT>"),
        image_seq_length=4,
    )
    videos = t.InternVLVideoProcessor(size=IMAGE)
    processor = t.InternVLProcessor(pixels, words, videos, image_seq_length=4, chat_template=chat)
    return t.InternVLForConditionalGeneration, config, processor


def _clip():
    return {
        "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
        "image_size": 56, "patch_size": 14, "projection_dim": 64,
    }  # fmt: skip


def llava(vocab):
    chat = template("<image>\n")
    pixels = t.CLIPImageProcessor(size={"shortest_edge": 56}, crop_size=IMAGE)
    processor = t.LlavaProcessor(
        pixels,
        tokenizer(chat, image_token="<image>"),
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=chat,
    )
    config = t.LlavaConfig(
        text_config=t.LlamaConfig(**TEXT, vocab_size=vocab),
        vision_config=t.CLIPVisionConfig(**_clip()),
        image_token_index=_id("<image>"),
        image_seq_length=16,
    )
    return t.LlavaForConditionalGeneration, config, processor


def onevision(vocab):
    chat = template("<image>\n", "<video>\n")
    pins = [[56, 56], [56, 112], [112, 56], [112, 112]]
    processor = t.LlavaOnevisionProcessor(
        t.LlavaOnevisionImageProcessor(size=IMAGE, image_grid_pinpoints=pins),
        tokenizer(chat, image_token="<image>", video_token="<video>"),
        t.LlavaOnevisionVideoProcessor(size=IMAGE),
        num_image_tokens=16,
        vision_feature_select_strategy="full",
        chat_template=chat,
    )
    vision = {name: value for name, value in _clip().items() if name != "projection_dim"}
    config = t.LlavaOnevisionConfig(
        text_config=t.Qwen2Config(**TEXT, vocab_size=vocab),
        vision_config=t.SiglipVisionConfig(**vision),
        image_token_index=_id("<image>"),
        video_token_index=_id("<video>"),
        image_grid_pinpoints=pins,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
    )
    return t.LlavaOnevisionForConditionalGeneration, config, processor


def gemma3(vocab):
    chat = template("<start_of_image>")
    words = tokenizer(chat, image_token="<image_soft_token>", boi_token="<start_of_image>", eoi_token="<end_of_image>")
    pixels = t.Gemma3ImageProcessor(size=IMAGE)
    processor = t.Gemma3Processor(pixels, words, chat_template=chat, image_seq_length=4)
    kinds = ["sliding_attention", "full_attention"] * 2
    text = TEXT | {"vocab_size": vocab, "head_dim": 16, "sliding_window": 32, "layer_types": kinds}
    vision = {name: value for name, value in _clip().items() if name != "projection_dim"}
    config = t.Gemma3Config(
        text_config=text,
        vision_config=vision,
        mm_tokens_per_image=4,
        image_token_index=_id("<image_soft_token>"),
        boi_token_index=_id("<start_of_image>"),
        eoi_token_index=_id("<end_of_image>"),
        tie_word_embeddings=False,
    )
    return t.Gemma3ForConditionalGeneration, config, processor


def qwen2audio(vocab):
    chat = template(audio="<|audio_bos|><|AUDIO|><|audio_eos|>\n")
    processor = t.Qwen2AudioProcessor(t.WhisperFeatureExtractor(feature_size=80), tokenizer(chat), chat_template=chat)
    audio = {
        "num_mel_bins": 80, "encoder_layers": 2, "encoder_attention_heads": 4, "encoder_ffn_dim": 128, "d_model": 64,
    }  # fmt: skip
    config = t.Qwen2AudioConfig(
        text_config=t.Qwen2Config(**TEXT, vocab_size=vocab).to_dict(),
        audio_config=audio,
        audio_token_index=_id("<|AUDIO|>"),
    )
    return t.Qwen2AudioForConditionalGeneration, config, processor


def caller(vocab):
    words = tokenizer(TOOLS)
    words.add_tokens([AddedToken(mark, normalized=False) for mark in ("<tool_call>", "</tool_call>")])
    return t.LlamaForCausalLM, t.LlamaConfig(**TEXT, vocab_size=vocab), words


def special_caller(vocab):
    words = tokenizer(TOOLS)
    words.add_special_tokens({"additional_special_tokens": ["<tool_call>", "</tool_call>"]})
    return t.LlamaForCausalLM, t.LlamaConfig(**TEXT, vocab_size=vocab), words


def _speaking(chat_template, *marks):
    words = tokenizer(chat_template)
    words.add_special_tokens({"additional_special_tokens": [*marks]})
    return words


def llama3_caller(vocab):
    marks = "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|python_tag|>"
    return t.LlamaForCausalLM, t.LlamaConfig(**TEXT, vocab_size=vocab), _speaking(LLAMA3, *marks)


def mistral_caller(vocab):
    words = _speaking(MISTRAL_LIST, "[INST]", "[/INST]", "[TOOL_CALLS]")
    return t.LlamaForCausalLM, t.LlamaConfig(**TEXT, vocab_size=vocab), words


def new_mistral_caller(vocab):
    words = _speaking(MISTRAL_NAMED, "[INST]", "[/INST]", "[TOOL_CALLS]", "[ARGS]")
    return t.LlamaForCausalLM, t.LlamaConfig(**TEXT, vocab_size=vocab), words


def mistral(vocab):
    config = t.MistralConfig(**TEXT, vocab_size=vocab, head_dim=16, sliding_window=32)
    return t.MistralForCausalLM, config, tokenizer(template())


def gptoss(vocab):
    text = TEXT | {"num_experts_per_tok": 2, "num_local_experts": 4, "head_dim": 16, "sliding_window": 32}
    return t.GptOssForCausalLM, t.GptOssConfig(**text, vocab_size=vocab), tokenizer(template())


def lfm2(vocab):
    kinds = ["conv", "full_attention"] * 2
    return t.Lfm2ForCausalLM, t.Lfm2Config(**TEXT, vocab_size=vocab, layer_types=kinds), tokenizer(template())


def deepseek3(vocab):
    text = TEXT | {
        "moe_intermediate_size": 32, "n_routed_experts": 4, "n_group": 2, "topk_group": 1, "num_experts_per_tok": 2,
        "kv_lora_rank": 16, "q_lora_rank": 32, "qk_rope_head_dim": 8, "qk_nope_head_dim": 16, "v_head_dim": 12,
        "first_k_dense_replace": 1, "num_key_value_heads": 4,
    }  # fmt: skip
    return t.DeepseekV3ForCausalLM, t.DeepseekV3Config(**text, vocab_size=vocab), tokenizer(template())


def bloom(vocab):
    config = t.BloomConfig(hidden_size=64, n_layer=2, n_head=4, vocab_size=vocab)
    return t.BloomForCausalLM, config, tokenizer(template())


def t5gemma2(vocab):
    _, gemma, processor = gemma3(vocab)
    named = {"vocab_size": vocab, "head_dim": 16, "sliding_window": 32, "hidden_size": 64, "num_hidden_layers": 2}
    text = TEXT | named | {"layer_types": ["sliding_attention", "full_attention"]}
    encoder = {
        "text_config": text,
        "vision_config": gemma.vision_config.to_dict(),
        "mm_tokens_per_image": 4,
        "image_token_index": _id("<image_soft_token>"),
        "boi_token_index": _id("<start_of_image>"),
        "eoi_token_index": _id("<end_of_image>"),
    }
    config = t.T5Gemma2Config(
        encoder=encoder,
        decoder=text,
        image_token_index=_id("<image_soft_token>"),
        bos_token_id=_id("<|im_start|>"),
        eos_token_id=_id("<|im_end|>"),
        pad_token_id=_id("<|endoftext|>"),
        decoder_start_token_id=_id("<|im_start|>"),
    )
    return t.T5Gemma2ForConditionalGeneration, config, processor


def _named(*builds):
    return {build.__name__: build for build in builds}


STEPPED = _named(
    llama, qwen2vl, qwen25vl, qwen3vl, qwen35, internvl, llava, onevision, gemma3, qwen2audio,
    mistral, gptoss, lfm2, deepseek3,
)  # fmt: skip
ALONE = _named(bloom, t5gemma2)
FAMILIES = STEPPED | ALONE
SHORT = {"bloom": 512}
"""Contexts of models whose own would take gigabytes: they read prompts whole, and keep what every pair of tokens is."""
HERMES_CALLERS = _named(caller, special_caller)
MISTRAL_CALLERS = _named(mistral_caller, new_mistral_caller)
CALLERS = HERMES_CALLERS | MISTRAL_CALLERS | _named(llama3_caller)
"""Whose templates know tools."""


def write_checkpoint(name, directory):
    """Save the family's model, processor and generation defaults; return the directory."""
    torch.manual_seed(0)
    model_class, config, processor = (FAMILIES | CALLERS)[name](512)
    model = model_class._from_config(config).eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.25)
    model.generation_config = t.GenerationConfig(
        eos_token_id=_id("<|im_end|>"), pad_token_id=_id("<|endoftext|>"), decoder_start_token_id=_id("<|im_start|>")
    )
    model.save_pretrained(directory)
    processor.save_pretrained(directory)
    return directory
