"""The deployment guide's walk-through for every model of the mission: each form of a medium, a streamed second turn."""

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from baton import XRequestConfig, inference_client
from baton.embedded import EmbeddedRedis
from tests.acceptance.conftest import Stack
from tests.acceptance.golden_walk import serving
from tests.cases import GOLDEN

QUESTION = "What is it?"
NUM_TOKENS = 10


@dataclass(frozen=True)
class Station:
    """One model, and a medium it takes."""

    model: str
    file: str
    tag: str = "img"
    part: str = "image_url"
    field: str = "images"

    @property
    def path(self) -> Path:
        return GOLDEN / self.model / "media" / self.file


STATIONS = (
    Station("qwen-vl-chat", "photo.jpg"),
    Station("yi-vl-6b-chat", "photo.jpg"),
    Station("minicpm-v-v2_5-chat", "small.png"),
    Station("minicpm-v-v2_6-chat", "small.png"),
    Station("minicpm-v-v2_6-chat", "clip.mp4", "video", "video_url", "videos"),
    Station("qwen2-audio-7b-instruct", "speech.wav", "audio", "audio_url", "audios"),
    Station("internvl2-2b", "photo.jpg"),
    Station("internvl2-2b", "clip.mp4", "video", "video_url", "videos"),
)


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """All models behind one gateway."""
    models = {station.model for station in STATIONS}
    with EmbeddedRedis() as server:
        stack = Stack(server.url)
        try:
            stack.start_gateway()
            for model in models:
                checkpoint = str(GOLDEN / model / "checkpoint")
                stack.start("worker", "--model_type", model, "--model_id_or_path", checkpoint, "--max_num_seqs", "4")
            stack.wait_for_models(*models)
            yield stack
        finally:
            stack.stop()


@pytest.fixture(scope="module")
def media_url() -> Iterator[str]:
    with serving(GOLDEN) as url:
        yield url


def ask(stack: Stack, station: Station, query: str, stream: bool = False, **more) -> str:
    """Ask through the Python client, as the guide's scripts do."""
    config = XRequestConfig(max_tokens=NUM_TOKENS, temperature=0, stream=stream)
    answer = inference_client(station.model, query, request_config=config, port=str(stack.port), **more)
    if stream:
        return "".join(chunk.choices[0].delta.content for chunk in answer)
    return answer.choices[0].message.content


@pytest.mark.parametrize("station", STATIONS, ids=lambda station: f"{station.model}-{station.field}")
def test_every_form_and_a_streamed_second_turn(stack, media_url, station):
    url = f"{media_url}/{station.model}/media/{station.file}"
    bare = base64.b64encode(station.path.read_bytes()).decode()
    content = [{"type": station.part, station.part: {"url": url}}, {"type": "text", "text": QUESTION}]

    answer = stack.client().chat.completions.create(
        model=station.model, messages=[{"role": "user", "content": content}], max_tokens=NUM_TOKENS, temperature=0
    )
    expected = answer.choices[0].message.content
    forms = {
        "tag with URL": ask(stack, station, f"<{station.tag}>{url}</{station.tag}>{QUESTION}"),
        "tag with path": ask(stack, station, f"<{station.tag}>{station.path}</{station.tag}>{QUESTION}"),
        "tag with base64": ask(stack, station, f"<{station.tag}>{bare}</{station.tag}>{QUESTION}"),
        "list with path": ask(stack, station, QUESTION, **{station.field: [str(station.path)]}),
        "streamed": ask(stack, station, f"<{station.tag}>{url}</{station.tag}>{QUESTION}", stream=True),
    }
    history = [(f"<{station.tag}>{url}</{station.tag}>{QUESTION}", expected)]
    second = ask(stack, station, "And then?", history=history)

    assert expected
    assert forms == dict.fromkeys(forms, expected)
    assert ask(stack, station, "And then?", history=history, stream=True) == second
    assert second != expected
