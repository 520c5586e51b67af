"""Checkpoints of native classes: stepped in one batch they say what `generate()` says one at a time."""

import random
from functools import cache
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from shared.job import MediaKind, MediaPart, Message, Role, TextPart
from tests.cases import INTERNVL2
from tests.worker.models import tiny
from tests.worker.models.golden import generate, sequence
from worker.models.registry import load_model
from worker.settings import WorkerSettings

CLIP = (INTERNVL2 / "media" / "clip.mp4").read_bytes()
NUM_REQUESTS, NUM_ROWS = 8, 4
WORDS = ["what", "is", "in", "this", "picture", "say", "the", "words", "of", "the", "clip", "one", "by", "one"]


@pytest.fixture(scope="session")
def load(tmp_path_factory):
    """Build and load each family once."""

    @cache
    def load(name):
        directory = tiny.write_checkpoint(name, tmp_path_factory.mktemp(name))
        settings = WorkerSettings(model_id_or_path=str(directory), max_num_seqs=NUM_ROWS)
        return load_model(settings, report=lambda words: None)

    return load


def picture(dice):
    width, height = dice.randint(40, 200), dice.randint(40, 200)
    noise = np.random.default_rng(dice.randint(0, 999)).integers(0, 256, (height, width, 3), dtype=np.uint8)
    content = BytesIO()
    Image.fromarray(noise).save(content, "PNG")
    return content.getvalue()


def conversation(dice, index, kinds):
    """A user's turn with up to two pictures, a clip or a sound, as far as the model takes them."""
    wanted = [*[MediaKind.IMAGE] * (index % 3), *[MediaKind.VIDEO] * (index in (3, 6))]
    media, parts = {}, []
    for kind in (kind for kind in wanted if kind in kinds):
        part = MediaPart(kind, f"{len(parts)}", f"messages[0].content[{len(parts)}]")
        media[part] = CLIP if kind is MediaKind.VIDEO else picture(dice)
        parts.append(part)
    parts.append(TextPart(" ".join(dice.choices(WORDS, k=dice.randint(1, 29)))))
    return (Message(Role.USER, tuple(parts)),), media


def mixed(model):
    """Prompts that differ in media and length, and how many tokens each is answered with."""
    dice = random.Random(0)
    kinds = model.facts.modalities
    prompts = [model.prepare(*conversation(dice, index, kinds)) for index in range(NUM_REQUESTS)]
    return [(prompt, dice.randint(8, 24)) for prompt in prompts]


def generated(model, prompt, num_tokens):
    ids = torch.tensor([prompt.token_ids])
    given = {**prompt.features, **prompt.token_features}
    with torch.inference_mode():
        whole = model.runner._model.generate(input_ids=ids, **given, max_new_tokens=num_tokens, do_sample=False)
    return whole[0, ids.shape[1] :].tolist()


@pytest.mark.parametrize("name", tiny.FAMILIES)
def test_rows_of_a_mixed_batch_say_what_generate_says_of_each(load, name):
    model = load(name)
    requests = mixed(model)
    answers = [sequence(prompt, str(index), num_tokens) for index, (prompt, num_tokens) in enumerate(requests)]

    texts = generate(model.runner, *answers, max_num_seqs=NUM_ROWS)

    expected = [generated(model, prompt, num_tokens) for prompt, num_tokens in requests]
    assert expected == [answer.token_ids for answer in answers]
    assert [model.tokenizer.decode(ids, skip_special_tokens=True) for ids in expected] == texts
    assert len({*texts}) == NUM_REQUESTS
