"""Local files to base64 and back, on every kind of input."""

import base64
from pathlib import Path

import pytest
from PIL import Image

from baton import convert_to_base64, decode_base64
from tests.cases import INTERNVL2

MEDIA = INTERNVL2 / "media"
PHOTO, SQUARE, CLIP = (MEDIA / name for name in ("photo.jpg", "square.png", "clip.mp4"))
URL = "http://example.com/rose.jpg"


def encoded(path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


def test_list_is_converted_whatever_is_in_it():
    given = [str(PHOTO), PHOTO, CLIP, PHOTO.read_bytes(), encoded(PHOTO), URL, "no-such-file.png"]

    converted = convert_to_base64(images=given)

    photo = encoded(PHOTO)
    assert converted == {"images": [photo, photo, encoded(CLIP), photo, photo, URL, "no-such-file.png"]}


def test_picture_in_memory_becomes_a_png():
    with Image.open(SQUARE) as picture:
        converted = convert_to_base64(images=[picture])["images"][0]

    assert base64.b64decode(converted).startswith(b"\x89PNG")


def test_tags_of_a_prompt_are_converted_and_the_words_are_not():
    prompt = f"<img>{PHOTO}</img>What? <video>{CLIP}</video> <audio>{URL}</audio> {PHOTO} <img>{PHOTO}</video>"

    converted = convert_to_base64(prompt=prompt)

    photo, clip = encoded(PHOTO), encoded(CLIP)
    assert converted == {
        "prompt": f"<img>{photo}</img>What? <video>{clip}</video> <audio>{URL}</audio> {PHOTO} <img>{PHOTO}</video>"
    }


def test_messages_are_converted_in_tags_and_in_parts():
    parts = [
        {"type": "text", "text": f"<img>{PHOTO}</img>"},
        {"type": "image_url", "image_url": {"url": str(SQUARE), "detail": "auto"}},
        {"type": "video_url", "video_url": str(CLIP)},
        {"type": "image", "image": URL},
    ]
    messages = [{"role": "user", "content": f"<img>{PHOTO}</img>?"}, {"role": "user", "content": parts}]

    converted = convert_to_base64(messages=messages)["messages"]

    assert converted[0] == {"role": "user", "content": f"<img>{encoded(PHOTO)}</img>?"}
    assert converted[1]["content"] == [
        {"type": "text", "text": f"<img>{encoded(PHOTO)}</img>"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{encoded(SQUARE)}", "detail": "auto"}},
        {"type": "video_url", "video_url": {"url": f"data:video/mp4;base64,{encoded(CLIP)}"}},
        {"type": "image_url", "image_url": {"url": URL}},
    ]
    assert messages[0]["content"] == f"<img>{PHOTO}</img>?"


def test_all_at_once_and_nothing_at_all():
    assert convert_to_base64() == {}
    assert convert_to_base64(messages=[{"role": "assistant", "content": None}], prompt="hi", images=[]) == {
        "messages": [{"role": "assistant", "content": None}],
        "prompt": "hi",
        "images": [],
    }


def test_base64_becomes_files_again(tmp_path):
    converted = convert_to_base64(
        prompt=f"<img>{PHOTO}</img>", images=[SQUARE, CLIP, URL], messages=[{"role": "user", "content": "hi"}]
    )

    decoded = decode_base64(**converted, tmp_dir=str(tmp_path / "files"))

    square, clip, url = decoded["images"]
    assert square.endswith(".png")
    assert clip.endswith(".mp4")
    assert [Path(path).read_bytes() for path in (square, clip)] == [SQUARE.read_bytes(), CLIP.read_bytes()]
    assert url == URL
    assert convert_to_base64(prompt=decoded["prompt"])["prompt"] == converted["prompt"]
    assert decode_base64(images=[square], tmp_dir=str(tmp_path)) == {"images": [square]}


def test_what_is_no_base64_is_told(tmp_path):
    with pytest.raises(ValueError, match=r"'no-such-file\.png' is neither"):
        decode_base64(images=["no-such-file.png"], tmp_dir=str(tmp_path))
