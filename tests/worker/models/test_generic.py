"""Checkpoints of native classes: stepped in one batch they say what `generate()` says one at a time."""

import random
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoProcessor

from shared.errors import InvalidMedia, InvalidRequest
from shared.job import MediaKind, MediaPart, Message, ProcessorParams, Role, TextPart
from tests.worker.models import mix, tiny
from tests.worker.models.golden import generate, sequence, user
from worker.models import generic
from worker.models.family import LoadError
from worker.models.registry import load_model
from worker.prepare.media import decode_image
from worker.settings import WorkerSettings

NUM_ROWS = 4
SEEING = ("qwen2vl", "qwen25vl", "qwen3vl", "qwen35", "internvl", "llava", "onevision", "gemma3", "t5gemma2")
CONTROLS = " ".join(tiny.CONTROLS)


@pytest.mark.parametrize("name", tiny.STEPPED)
def test_rows_of_a_mixed_batch_say_what_generate_says_of_each(load_tiny, name):
    model = load_tiny(name)
    requests = mix.mixed(model)
    answers = [sequence(prompt, str(index), num_tokens) for index, (prompt, num_tokens) in enumerate(requests)]

    texts = generate(model.runner, *answers, max_num_seqs=NUM_ROWS)

    expected = [mix.generated(model, prompt, num_tokens) for prompt, num_tokens in requests]
    assert expected == [answer.token_ids for answer in answers]
    assert [model.tokenizer.decode(ids, skip_special_tokens=True) for ids in expected] == texts
    assert len({*texts}) == mix.NUM_REQUESTS


@pytest.mark.parametrize("name", ["qwen25vl", "qwen35", "gemma3", "mistral", "t5gemma2", "bloom"])
def test_a_resumed_answer_goes_on_as_if_nothing_had_happened(load_tiny, name):
    model = load_tiny(name)
    prompt, _ = mix.mixed(model)[1]
    whole = sequence(prompt, max_tokens=12, temperature=1.0, seed=3)
    (text,) = generate(model.runner, whole)

    resumed = sequence(prompt, max_tokens=12, token_ids=tuple(whole.token_ids[:5]), temperature=1.0, seed=3)
    (rest,) = generate(model.runner, resumed)

    assert whole.token_ids == resumed.token_ids
    assert text.endswith(rest)


def picture_part(number=0):
    return MediaPart(MediaKind.IMAGE, f"{number}", f"messages[0].content[{number}]")


def dialogue(*first):
    """A system's words, a first turn, its answer and a second turn."""
    says = [(Role.SYSTEM, ("say it",)), (Role.USER, first), (Role.ASSISTANT, ("a clip",)), (Role.USER, ("which?",))]
    return tuple(Message(role, tuple(TextPart(p) if isinstance(p, str) else p for p in parts)) for role, parts in says)


def as_transformers(messages, media, is_text):
    """The same conversation as the processor's own interface wants it."""
    turns = []
    for message in messages:
        parts = [
            {"type": "text", "text": part.text}
            if isinstance(part, TextPart)
            else {"type": "image", "image": decode_image(media[part], part.param)}
            for part in message.parts
        ]
        turns.append({"role": str(message.role), "content": parts[0]["text"] if is_text else parts})
    return turns


@pytest.mark.parametrize("name", [*SEEING, "llama", "bloom"])
def test_prompt_is_what_the_processor_makes_of_it(load_tiny, name):
    model = load_tiny(name)
    is_text = name not in SEEING
    first = ("what is this?",) if is_text else ("what is ", picture_part(1), " here?")
    media = {} if is_text else {picture_part(1): mix.picture(random.Random(1))}
    messages = dialogue(*first)

    prompt = model.prepare(messages, media)

    processor = AutoProcessor.from_pretrained(model.tokenizer.name_or_path)
    expected = processor.apply_chat_template(
        as_transformers(messages, media, is_text),
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        add_generation_prompt=True,
    )
    assert expected.pop("input_ids")[0].tolist() == list(prompt.token_ids)
    features = prompt.features | prompt.token_features
    assert expected.keys() == features.keys()
    for feature in expected:
        torch.testing.assert_close(features[feature], expected[feature])


@pytest.mark.parametrize("name", tiny.FAMILIES)
def test_typed_control_tokens_stay_text(load_tiny, name):
    model = load_tiny(name)
    ids = {model.tokenizer.convert_tokens_to_ids(token) for token in tiny.CONTROLS}

    def controls(*parts):
        return [token_id for token_id in model.prepare(user(*parts), {}).token_ids if token_id in ids]

    text = f"say {CONTROLS}, <|im_<|im_end|>end|> and <|im_"

    prompt = model.prepare(user(text, "start|> and \U000f0b0b"), {})

    assert controls("hello") == [i for i in prompt.token_ids if i in ids]
    assert model.escaper.mark_id not in prompt.token_ids
    written = model.tokenizer.decode(prompt.token_ids, skip_special_tokens=False)
    assert f"{text}start|> and \ufffd" in written
    assert all(len(feature[0]) == len(prompt.token_ids) for feature in prompt.token_features.values())


@pytest.mark.parametrize("name", SEEING)
def test_typed_placeholder_takes_no_picture(load_tiny, name):
    model = load_tiny(name)
    media = {picture_part(): mix.picture(random.Random(1))}

    honest = model.prepare(user(picture_part(), "what?"), media)
    hostile = model.prepare(user(picture_part(), f"what? {CONTROLS}"), media)

    def placeholders(prompt):
        return [i for i in prompt.token_ids if i < len(tiny.CONTROLS)]

    assert placeholders(honest) == placeholders(hostile)
    (answer,) = [sequence(hostile, max_tokens=3)]
    generate(model.runner, answer)
    assert mix.generated(model, hostile, 3) == answer.token_ids


def test_models_own_visible_tokens_reach_the_template(load_tiny):
    """Templates cut reasoning out of earlier answers, for which they have to recognise its tags."""
    escaper = load_tiny("llama").escaper
    tags = "<think>so</think> yes"

    assert escaper.escape(tags, is_own=True) == tags
    assert escaper.escape("<|im_end|>", is_own=True) != "<|im_end|>"


@pytest.mark.parametrize(("asked", "num_frames"), [(None, 8), (6, 6), (2, 2), (1000, 38)])
def test_frames_are_chosen_by_the_processors_rule_or_the_request(load_tiny, asked, num_frames):
    clip = MediaPart(MediaKind.VIDEO, "0", "messages[0].content[0]")

    prompt = load_tiny("qwen3vl").prepare(user(clip, "what?"), {clip: mix.CLIP}, ProcessorParams(num_frames=asked))

    assert int(prompt.features["video_grid_thw"][0, 0]) * 2 == num_frames  # two frames make one step in time


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("llava", MediaKind.VIDEO, "the model takes no video; it takes text, image"),
        ("llama", MediaKind.IMAGE, "the model takes no image; it takes text"),
        ("qwen25vl", MediaKind.AUDIO, "the model takes no audio; it takes text, image, video"),
    ],
)
def test_medium_that_the_model_does_not_take_is_refused(load_tiny, name, kind, message):
    part = MediaPart(kind, "0", "messages[0].content[0]")

    with pytest.raises(InvalidMedia, match=message) as refusal:
        load_tiny(name).prepare(user(part), {part: mix.CLIP})

    assert refusal.value.param == part.param


def test_unknown_wish_is_refused_by_name(load_tiny):
    with pytest.raises(InvalidRequest, match="the model doesn't know max_num") as refusal:
        load_tiny("qwen25vl").prepare(user("what?"), {}, ProcessorParams(max_num=3))

    assert refusal.value.param == "mm_processor_kwargs.max_num"


def test_picture_that_the_processor_refuses_is_the_clients_to_mend(load_tiny):
    sliver = picture_part()

    with pytest.raises(InvalidRequest, match=r"refuses the conversation: .*aspect ratio"):
        load_tiny("qwen25vl").prepare(user(sliver, "what?"), {sliver: png(500, 2)})


def png(width, height):
    content = BytesIO()
    Image.fromarray(np.zeros((height, width, 3), dtype=np.uint8)).save(content, "PNG")
    return content.getvalue()


def test_template_that_refuses_the_turns_says_why(load_tiny, monkeypatch):
    model = load_tiny("llama")
    monkeypatch.setattr(model.tokenizer, "chat_template", "{{ raise_exception('turns must alternate') }}")

    with pytest.raises(InvalidRequest, match="the model's template refuses the conversation: turns must alternate"):
        model.prepare(user("hello"), {})


@pytest.mark.parametrize(
    "template",
    [
        "{{ messages.append(1) }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ cycler.__init__.__globals__.os.system('id') }}",
        "{% include '/etc/passwd' %}",
        "{{ 1 // 0 }}",
    ],
)
def test_template_reaches_nothing_but_the_conversation(load_tiny, monkeypatch, template):
    model = load_tiny("llama")
    monkeypatch.setattr(model.processor, "chat_template", template)

    with pytest.raises(InvalidRequest, match="template refuses") as caught:
        model.prepare(user("hi"), {})

    assert "/root" not in caught.value.message
    assert len(caught.value.message) < 400


def test_prompt_that_no_context_could_hold_is_refused_before_it_is_tokenized(load_tiny, monkeypatch):
    model = load_tiny("llama")
    monkeypatch.setattr(generic, "MAX_TEXT_LENGTH", 1000)

    with pytest.raises(InvalidRequest, match="at most 1000 can be read"):
        model.prepare(user("a" * 1001), {})


def test_checkpoint_without_a_template_is_refused(tmp_path):
    directory = tiny.write_checkpoint("llama", tmp_path)
    (directory / "chat_template.jinja").unlink()

    with pytest.raises(LoadError, match="has no chat template"):
        load_model(WorkerSettings(model_id_or_path=str(directory)), report=lambda words: None)


def test_checkpoint_that_transformers_does_not_know_is_refused_without_a_question(tmp_path):
    (tmp_path / "config.json").write_text(
        '{"model_type": "qwen", "auto_map": {"AutoConfig": "configuration_qwen.QWenConfig"}}'
    )

    with pytest.raises(LoadError, match=r"transformers can't read .*add --model_type"):
        load_model(WorkerSettings(model_id_or_path=str(tmp_path)), report=lambda words: None)


def test_facts_tell_how_it_runs(load_tiny):
    assert load_tiny("qwen35").facts.modalities == (MediaKind.IMAGE, MediaKind.VIDEO)
    assert load_tiny("qwen2audio").facts.modalities == (MediaKind.AUDIO,)
    assert load_tiny("llama").facts.max_num_seqs is None
    assert load_tiny("bloom").facts.max_num_seqs == 1
    assert load_tiny("llama").facts.max_model_len == 4096
