"""Pictures of every mode in every family: as the authors' loaders have them, `Image.open(file).convert("RGB")`.

In none of them is the rotation of EXIF applied, but in the generic family, whose arbiter is transformers' own loader.
"""

import base64
import io
import random
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoProcessor
from transformers.image_utils import load_image

from shared.job import MediaKind, MediaPart
from tests.cases import QWEN_VL, YI_VL
from tests.worker.models import minicpmv
from tests.worker.models.golden import golden_model, user

PART = MediaPart(MediaKind.IMAGE, "0", "messages[0].content[0]")
FAMILIES = {
    "internvl2": golden_model,
    "qwen-vl": partial(golden_model, None, QWEN_VL),
    "yi-vl": partial(golden_model, None, YI_VL),
    "minicpm-v 2.5": partial(minicpmv.golden_model, "2.5"),
    "minicpm-v 2.6": partial(minicpmv.golden_model, "2.6"),
}
SIZE = (150, 90)


def noise(*bands):
    size = len(bands) * SIZE[0] * SIZE[1]
    return random.Random(0).randbytes(size)


def smooth():
    """Something that looks like a picture, so that an orientation shows."""
    ramp = np.linspace(0, 255, SIZE[0] * SIZE[1] * 3).reshape(SIZE[1], SIZE[0], 3)
    return Image.fromarray(ramp.astype(np.uint8))


def saved(picture, kind, **options):
    content = io.BytesIO()
    picture.save(content, kind, **options)
    return content.getvalue()


def sixteen_bits(kind):
    grey = np.linspace(0, 65535, SIZE[0] * SIZE[1]).reshape(SIZE[1], SIZE[0]).astype(np.uint16)
    return saved(Image.fromarray(grey), kind)


def rotated():
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    return saved(smooth(), "JPEG", exif=exif)


def palette(**options):
    return saved(smooth().quantize(16), "PNG", **options)


PICTURES = {
    "16-bit grey PNG": sixteen_bits("PNG"),
    "16-bit grey TIFF": sixteen_bits("TIFF"),
    "CMYK JPEG": saved(Image.frombytes("CMYK", SIZE, noise(*"CMYK")), "JPEG"),
    "CMYK TIFF": saved(Image.frombytes("CMYK", SIZE, noise(*"CMYK")), "TIFF"),
    "palette": palette(),
    "transparent palette": palette(transparency=3),
    "animated palette": saved(smooth().quantize(16), "GIF", save_all=True, append_images=[smooth().quantize(4)]),
    "alpha": saved(Image.frombytes("RGBA", SIZE, noise(*"RGBA")), "PNG"),
    "grey with alpha": saved(Image.frombytes("LA", SIZE, noise(*"LA")), "PNG"),
    "grey": saved(smooth().convert("L"), "PNG"),
    "black and white": saved(smooth().convert("1"), "PNG"),
    "YCbCr": saved(smooth().convert("YCbCr"), "JPEG"),
    "LAB": saved(Image.frombytes("LAB", SIZE, noise(*"LAB")), "TIFF"),
    "32-bit float": saved(Image.fromarray(np.linspace(0, 300, 13_500, dtype=np.float32).reshape(90, 150)), "TIFF"),
    "rotated by EXIF": rotated(),
}


def features(model, content):
    return model.prepare(user(PART, "what?"), {PART: content}).features


@pytest.mark.parametrize("kind", PICTURES)
@pytest.mark.parametrize("family", FAMILIES)
def test_picture_is_seen_as_the_authors_loader_converts_it(family, kind):
    content = PICTURES[kind]
    with Image.open(io.BytesIO(content)) as picture:
        plain = Image.frombytes("RGB", picture.size, picture.convert("RGB").tobytes())  # pixels and nothing else

    expected, seen = (features(FAMILIES[family](), given) for given in (saved(plain, "PNG"), content))

    assert expected.keys() == seen.keys()
    assert all(expected[name].equal(seen[name]) for name in expected)


@pytest.mark.parametrize("kind", PICTURES)
@pytest.mark.parametrize("name", ["qwen2vl", "llava"])
def test_picture_is_seen_as_transformers_own_loader_reads_it(load_tiny, name, kind):
    encoded = base64.b64encode(PICTURES[kind]).decode()  # a file it would leave open
    model = load_tiny(name)
    own = AutoProcessor.from_pretrained(model.tokenizer.name_or_path).image_processor

    expected = own([load_image(encoded)], return_tensors="pt")

    torch.testing.assert_close(features(model, PICTURES[kind])["pixel_values"], expected["pixel_values"])


def test_rotation_is_applied_in_the_generic_family(load_tiny):
    _, height, width = features(load_tiny("qwen2vl"), rotated())["image_grid_thw"][0].tolist()

    assert height > width  # as stored it is wider than high
