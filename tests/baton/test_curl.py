import base64
import io
import json
import shlex
from typing import Any

import pytest
from PIL import Image

from baton.curl import base_url, curl_command
from shared.fleet import WorkerInfo, WorkerState
from shared.job import MediaKind


def worker(*modalities: MediaKind) -> WorkerInfo:
    return WorkerInfo(
        id="w", host="h", pid=1, version="0", device="cpu", model="it's", model_type="m", state=WorkerState.READY,
        modalities=modalities,
    )  # fmt: skip


def body(command: str) -> dict[str, Any]:
    words = shlex.split(command)
    parsed: dict[str, Any] = json.loads(words[words.index("-d") + 1])
    return parsed


def test_model_that_sees_is_asked_about_a_picture() -> None:
    command = curl_command("http://127.0.0.1:8000", worker(MediaKind.VIDEO, MediaKind.IMAGE), needs_key=False)

    part, _ = body(command)["messages"][0]["content"]
    png = base64.b64decode(part["image_url"]["url"].removeprefix("data:image/png;base64,"))
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    assert picture.size == (64, 64)
    assert picture.getpixel((20, 22)) == (220, 40, 40)
    assert picture.getpixel((45, 43)) == (45, 85, 225)
    assert picture.getpixel((2, 2)) == (255, 255, 255)
    assert len(command) < 1000
    assert "\n" not in command


def test_model_that_only_reads_is_asked_in_words() -> None:
    question = body(curl_command("http://127.0.0.1:8000", worker(), needs_key=False))

    assert question["model"] == "it's"
    assert isinstance(question["messages"][0]["content"], str)


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:80"),
        ("0.0.0.0", "http://127.0.0.1:80"),
        ("::", "http://[::1]:80"),
        ("gpu-box", "http://gpu-box:80"),
    ],
)
def test_url_is_one_that_this_machine_reaches(host: str, url: str) -> None:
    assert base_url(host, 80) == url
