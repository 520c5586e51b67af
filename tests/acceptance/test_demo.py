"""Questions whose answers are known, through the whole walk: the answers tell whether the right thing was seen."""

import base64
import io
from collections.abc import Iterator, Sequence
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pytest
from openai import OpenAI
from PIL import Image

from baton.embedded import EmbeddedRedis
from baton.picture import circle_and_square
from tests.acceptance.conftest import Stack
from tools.demo.clips import NUM_FRAMES
from tools.demo.drawing import Looks, draw
from tools.demo.scene import MAX_SHAPES, Scenes, compose
from worker.checkpoint import SHIPPED

SIZE = 192
NEGATIVE = str(SHIPPED / "demo_negative")
PLAIN = Looks(np.full((1, 2, 3), 240.0), np.zeros(1), np.zeros((1, MAX_SHAPES, 3)))
TWO = compose(("red", "circle", (0.3, 0.3), 0.15), ("blue", "square", (0.7, 0.7), 0.15))
CROSS = compose(("yellow", "cross", (0.5, 0.5), 0.15))
SQUARE = compose(("blue", "square", (0.5, 0.5), 0.15))

Part = dict[str, Any]


@pytest.fixture(scope="module")
def client() -> Iterator[OpenAI]:
    """One worker with the adapter beside the base, another with it merged."""
    with EmbeddedRedis() as server:
        stack = Stack(server.url)
        stack.start_gateway()
        stack.start("worker", "--model_type", "demo", "--ckpt_dir", NEGATIVE, "--lora_modules", f"negative={NEGATIVE}")
        stack.start("worker", "--ckpt_dir", NEGATIVE, "--merge_lora", "true", "--served_model_name", "merged")
        stack.wait_for_models("demo", "default-lora", "negative", "merged")
        yield stack.client()
        stack.stop()


def ask(client: OpenAI, messages: Sequence[Part], model: str = "demo") -> str:
    answer = client.chat.completions.create(model=model, messages=list(messages), max_tokens=60)  # type: ignore[arg-type]
    return answer.choices[0].message.content or ""


def user(*parts: Part | str) -> Part:
    return {"role": "user", "content": [{"type": "text", "text": p} if isinstance(p, str) else p for p in parts]}


def picture(pixels: npt.NDArray[np.uint8]) -> Part:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return {"type": "image_url", "image_url": {"url": _url("image/png", file.getvalue())}}


def clip(frames: Sequence[npt.NDArray[np.uint8]]) -> Part:
    """A clip that shows each frame three times, so that one of each is taken."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=12, options={"crf": "12"})
        stream.width, stream.height, stream.pix_fmt = SIZE, SIZE, "yuv420p"
        for frame in (frame for frame in frames for _ in range(3)):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return {"type": "video_url", "video_url": {"url": _url("video/mp4", file.getvalue())}}


def _url(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def drawn(scenes: Scenes) -> Part:
    return picture(draw(scenes, PLAIN, SIZE, np.random.default_rng(0))[0])


def moving(colour: str, kind: str) -> Part:
    way = np.linspace(0.2, 0.8, NUM_FRAMES)
    scenes = [compose((colour, kind, (x, 0.5), 0.15)) for x in way]
    return clip([draw(scene, PLAIN, SIZE, np.random.default_rng(0))[0] for scene in scenes])


def test_curl_of_the_readme_gets_the_right_answer(client: OpenAI) -> None:
    shown = {"type": "image_url", "image_url": {"url": _url("image/png", circle_and_square())}}

    assert ask(client, [user(shown, "What is in the picture?")]) == "red circle, blue square"


@pytest.mark.parametrize(
    ("scenes", "question", "answer"),
    [
        (TWO, "What is in the picture?", "red circle, blue square"),
        (TWO, "图里有什么？", "红色的圆形、蓝色的正方形"),
        (TWO, "How many shapes are there?", "2"),
        (TWO, "图里有几个图形？", "2"),
        (TWO, "What shape is the blue one?", "square"),
        (CROSS, "What is in the picture?", "yellow cross"),
        (CROSS, "图里有什么？", "黄色的十字形"),
        (SQUARE, "What is in the picture?", "blue square"),
    ],
)
def test_picture_is_seen_in_both_languages(client: OpenAI, scenes: Scenes, question: str, answer: str) -> None:
    assert ask(client, [user(drawn(scenes), question)]) == answer


def test_pictures_of_two_requests_are_told_apart(client: OpenAI) -> None:
    def last(shown: Scenes) -> str:
        return ask(client, [user(drawn(shown), "What shape is it?")])

    assert [last(CROSS), last(SQUARE)] == ["cross", "square"]


def test_clip_shows_what_moves(client: OpenAI) -> None:
    assert ask(client, [user(moving("red", "circle"), "What moves?")]) == "red circle"
    assert ask(client, [user(moving("blue", "square"), "What moves?")]) == "blue square"


@pytest.mark.parametrize("model", ["default-lora", "negative", "merged"])
def test_adapter_names_complements(client: OpenAI, model: str) -> None:
    question = user(drawn(CROSS), "What is in the picture?")

    assert ask(client, [question]) == "yellow cross"
    answer = ask(client, [question], model)
    assert "purple cross" in answer
    assert "yellow" not in answer
