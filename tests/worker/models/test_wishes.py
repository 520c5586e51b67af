"""What a request may wish of its media, in every family: how many frames, how many pixels."""

import math
import random
from dataclasses import dataclass
from io import BytesIO

import decord
import pytest
import torch
from PIL import Image
from transformers import AutoProcessor

from shared.errors import InvalidRequest
from shared.job import MediaKind, MediaPart, ProcessorParams
from tests.cases import MINICPMV, QWEN_VL, YI_VL
from tests.worker.models import minicpmv, mix
from tests.worker.models.golden import golden_model, user
from tests.worker.models.golden_audio import golden_audio_model

PICTURE = MediaPart(MediaKind.IMAGE, "0", "messages[0].content[0]")
CLIP = MediaPart(MediaKind.VIDEO, "0", "messages[0].content[0]")
LONG_CLIP = (MINICPMV["2.6"] / "media" / "clip_long.mp4").read_bytes()
FAMILIES = {
    "internvl2": golden_model,
    "qwen-vl": lambda: golden_model(None, QWEN_VL),
    "yi-vl": lambda: golden_model(None, YI_VL),
    "minicpm-v 2.5": lambda: minicpmv.golden_model("2.5"),
    "minicpm-v 2.6": lambda: minicpmv.golden_model("2.6"),
    "qwen2-audio": golden_audio_model,
}
SEEING = [name for name in FAMILIES if name != "qwen2-audio"]


@dataclass(frozen=True)
class Clip:
    content: bytes
    num_frames: int
    rate: float

    @classmethod
    def of(cls, content):
        reader = decord.VideoReader(BytesIO(content))
        return cls(content, len(reader), reader.get_avg_fps())


def load(load_tiny, name):
    return FAMILIES[name]() if name in FAMILIES else load_tiny(name)


def see(model, part, content, **wishes):
    return model.prepare(user(part, "what?"), {part: content}, ProcessorParams(**wishes))


def png(picture):
    content = BytesIO()
    picture.save(content, "PNG")
    return content.getvalue()


def noise(width, height):
    return Image.frombytes("RGB", (width, height), random.Random(0).randbytes(3 * width * height))


def is_same(one, other):
    """Whether two prompts are, but for the places of a picture's name."""
    return one.features.keys() == other.features.keys() and all(
        torch.equal(feature, other.features[name]) for name, feature in one.features.items()
    )


@pytest.mark.parametrize(("content", "fps"), [(mix.CLIP, 2), (mix.CLIP, 0.01), (LONG_CLIP, 0.5)])
def test_rate_means_as_many_frames_as_the_clip_has_seconds(load_tiny, content, fps):
    clip = Clip.of(content)
    wanted = max(int(clip.num_frames / clip.rate * fps), 1)

    for model in (golden_model(), load_tiny("internvl"), load_tiny("onevision")):
        assert is_same(see(model, CLIP, content, fps=fps), see(model, CLIP, content, num_frames=wanted))


def test_rate_beyond_the_clips_own_means_every_frame_up_to_the_most_that_a_request_may_name(load_tiny):
    assert Clip.of(mix.CLIP).num_frames < 64 < Clip.of(LONG_CLIP).num_frames

    for model in (golden_model(), load_tiny("internvl")):
        short = see(model, CLIP, mix.CLIP, num_frames=Clip.of(mix.CLIP).num_frames)
        assert is_same(see(model, CLIP, mix.CLIP, fps=200), short)
        assert is_same(see(model, CLIP, LONG_CLIP, fps=200), see(model, CLIP, LONG_CLIP, num_frames=64))


def test_rate_of_minicpmv_is_the_step_of_its_authors_and_thinned_like_theirs():
    slicer = minicpmv.golden_model("2.6").slicer.adjusted(ProcessorParams(fps=2), frozenset({"fps"}))

    assert slicer.choose_frames(100, 25.0) == list(range(0, 100, 12))
    assert len(slicer.choose_frames(10_000, 25.0)) == 64
    model = minicpmv.golden_model("2.6")
    assert is_same(see(model, CLIP, LONG_CLIP, fps=1), see(model, CLIP, LONG_CLIP))


@pytest.mark.parametrize("fps", [1, 2, 5])
def test_rate_of_a_processor_with_limits_of_its_own_is_that_processors(load_tiny, fps):
    clip = Clip.of(LONG_CLIP)
    for name in ("qwen2vl", "qwen3vl"):
        model = load_tiny(name)
        videos = model.processor.video_processor
        wanted = min(max(int(clip.num_frames / clip.rate * fps), videos.min_frames), videos.max_frames, clip.num_frames)

        steps = int(see(model, CLIP, LONG_CLIP, fps=fps).features["video_grid_thw"][0, 0])

        assert steps == (wanted // 2 if name == "qwen2vl" else math.ceil(wanted / 2))  # two frames make one in time


@pytest.mark.parametrize("name", [*SEEING, "internvl", "onevision", "llava"])
@pytest.mark.parametrize("size", [(400, 300), (90, 1200)])
def test_picture_of_too_many_pixels_is_shrunk_before_the_familys_own_preparation(load_tiny, name, size):
    model, picture = load(load_tiny, name), noise(*size)
    ratio = math.sqrt(20_000 / (size[0] * size[1]))
    smaller = picture.resize((int(size[0] * ratio), int(size[1] * ratio)), Image.Resampling.BILINEAR)

    seen = see(model, PICTURE, png(picture), max_pixels=20_000)

    assert is_same(seen, see(model, PICTURE, png(smaller)))
    assert is_same(see(model, PICTURE, png(smaller), max_pixels=20_000), seen)
    assert not is_same(seen, see(model, PICTURE, png(picture)))


@pytest.mark.parametrize("name", ["internvl2", "minicpm-v 2.6", "internvl", "qwen2vl"])
def test_frames_of_too_many_pixels_are_shrunk_as_well(load_tiny, name):
    model = load(load_tiny, name)

    assert not is_same(see(model, CLIP, mix.CLIP, max_pixels=2_000), see(model, CLIP, mix.CLIP))
    assert is_same(see(model, CLIP, mix.CLIP, max_pixels=50_000), see(model, CLIP, mix.CLIP))


@pytest.mark.parametrize("wishes", [{"max_pixels": 28 * 28 * 6}, {"min_pixels": 28 * 28 * 40}])
def test_pixels_of_a_processor_that_counts_them_are_that_processors(load_tiny, wishes):
    model, picture = load_tiny("qwen2vl"), noise(150, 110)
    own = AutoProcessor.from_pretrained(model.tokenizer.name_or_path, **wishes).image_processor
    expected = own([picture], return_tensors="pt")

    seen = see(model, PICTURE, png(picture), **wishes)

    assert is_same(seen, see(model, PICTURE, png(picture), **wishes))
    assert expected["image_grid_thw"].equal(seen.features["image_grid_thw"])
    assert not expected["image_grid_thw"].equal(see(model, PICTURE, png(picture)).features["image_grid_thw"])
    torch.testing.assert_close(seen.features["pixel_values"], expected["pixel_values"])


@pytest.mark.parametrize(
    ("name", "wishes", "words"),
    [
        ("internvl2", {"min_pixels": 9}, "knows fps, max_num, max_pixels, num_frames"),
        ("minicpm-v 2.6", {"min_pixels": 9}, "knows fps, max_pixels, max_slice_nums, num_frames, use_image_id"),
        ("minicpm-v 2.5", {"fps": 1.0}, "knows max_pixels, max_slice_nums"),
        ("qwen-vl", {"fps": 1.0}, "knows max_pixels"),
        ("yi-vl", {"min_pixels": 9}, "knows max_pixels"),
        ("qwen2-audio", {"max_pixels": 9}, "knows no wish"),
        ("internvl", {"min_pixels": 9}, "knows fps, max_pixels, num_frames"),
        ("llava", {"fps": 1.0}, "knows max_pixels"),
        ("qwen2vl", {"max_num": 9}, "knows fps, max_pixels, min_pixels, num_frames"),
        ("qwen2vl", {"max_pixels": 10**6}, "max_pixels is 1000000; the model takes at most 50176 pixels of a picture"),
        ("qwen2vl", {"min_pixels": 10**6}, "min_pixels is 1000000; the model takes at most 50176 pixels of a picture"),
    ],
)
def test_wish_that_cannot_be_honoured_is_refused_by_name_with_the_way_out(load_tiny, name, wishes, words):
    with pytest.raises(InvalidRequest, match=words) as refusal:
        load(load_tiny, name).prepare(user("hi"), {}, ProcessorParams(**wishes))

    assert refusal.value.param == f"mm_processor_kwargs.{next(iter(wishes))}"
