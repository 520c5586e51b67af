"""Requests of every kind a tiny model takes, and what `generate()` alone answers."""

import random
import wave
from io import BytesIO

import numpy as np
import torch
from PIL import Image

from shared.job import MediaKind, MediaPart, Message, Role, TextPart
from tests.cases import INTERNVL2

CLIP = (INTERNVL2 / "media" / "clip.mp4").read_bytes()
NUM_REQUESTS = 8
WORDS = ["what", "is", "in", "this", "picture", "say", "the", "words", "of", "the", "clip", "one", "by", "one"]


def picture(dice):
    width, height = dice.randint(40, 200), dice.randint(40, 200)
    content = BytesIO()
    Image.fromarray(_noise(dice, (height, width, 3))).save(content, "PNG")
    return content.getvalue()


def sound(dice):
    """A WAV of half a second to two and a half, at the rate that Whisper's features want."""
    content = BytesIO()
    with wave.open(content, "wb") as file:
        file.setparams((1, 1, 16_000, 0, "NONE", "NONE"))
        file.writeframes(_noise(dice, (dice.randint(8_000, 40_000),)).tobytes())
    return content.getvalue()


def _noise(dice, shape):
    return np.random.default_rng(dice.randint(0, 999)).integers(0, 256, shape, dtype=np.uint8)


def _wanted(index):
    """Up to two pictures, and now and then a clip or sounds."""
    clips = [MediaKind.VIDEO] * {3: 1, 6: 2}.get(index, 0)
    return [*[MediaKind.IMAGE] * (index % 3), *clips, *[MediaKind.AUDIO] * (index % 3)]


def conversation(dice, index, kinds):
    """A user's turn: media as far as the model takes them, then some words."""
    contents = {MediaKind.IMAGE: picture, MediaKind.VIDEO: lambda dice: CLIP, MediaKind.AUDIO: sound}
    media, parts = {}, []
    for kind in (kind for kind in _wanted(index) if kind in kinds):
        part = MediaPart(kind, f"{len(parts)}", f"messages[0].content[{len(parts)}]")
        media[part] = contents[kind](dice)
        parts.append(part)
    parts.append(TextPart(" ".join(dice.choices(WORDS, k=dice.randint(1, 29)))))
    return (Message(Role.USER, tuple(parts)),), media


def mixed(model):
    """Prompts that differ in media and length, and how many tokens each is answered with."""
    dice = random.Random(0)
    prompts = [model.prepare(*conversation(dice, i, model.facts.modalities)) for i in range(NUM_REQUESTS)]
    return [(prompt, dice.randint(8, 24)) for prompt in prompts]


def generated(model, prompt, num_tokens, network=None):
    """What the model's own loop answers, its stop token included; or that of another network."""
    network = network or model.runner._model
    ids = torch.tensor([prompt.token_ids])
    given = {**prompt.features, **prompt.token_features}
    with torch.inference_mode():
        whole = network.generate(input_ids=ids, **given, max_new_tokens=num_tokens, do_sample=False)
    return whole[0, 1 if network.config.is_encoder_decoder else ids.shape[1] :].tolist()
