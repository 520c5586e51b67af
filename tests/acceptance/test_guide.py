"""The deployment guide's walk-through for every model of the mission: each form of a medium, a streamed second turn."""

import base64
import json
import mimetypes
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from baton import XRequestConfig, inference_client
from tests.acceptance.conftest import MODEL, Stack
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


@dataclass(frozen=True)
class Way:
    """A stack that serves a station's model, and where its media lie."""

    stack: Stack
    media_url: str


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


@pytest.fixture(params=STATIONS, ids=lambda station: f"{station.model}-{station.field}")
def station(request) -> Station:
    return request.param


@pytest.fixture
def way(station, request) -> Way:
    """A running stack with the station's model; nothing is started twice in a session."""
    fleet = request.getfixturevalue("fleet")
    if station.model == MODEL:
        return Way(request.getfixturevalue("stack"), fleet.media_url)
    fleet.start(station.model)
    return Way(fleet.stack, fleet.media_url)


def ask(way: Way, station: Station, query: str, stream: bool = False, **more) -> str:
    """Ask through the Python client, as the guide's scripts do."""
    config = XRequestConfig(max_tokens=NUM_TOKENS, temperature=0, stream=stream)
    answer = inference_client(station.model, query, request_config=config, port=str(way.stack.port), **more)
    if stream:
        return "".join(chunk.choices[0].delta.content for chunk in answer)
    return answer.choices[0].message.content


def body(station: Station, address: str, **more) -> dict:
    """One question about one medium, as OpenAI writes it."""
    content = [{"type": station.part, station.part: {"url": address}}, {"type": "text", "text": QUESTION}]
    messages = [{"role": "user", "content": content}]
    return {"model": station.model, "messages": messages, "max_tokens": NUM_TOKENS, "temperature": 0} | more


def openai(way: Way, station: Station, address: str) -> str:
    answer = way.stack.client().chat.completions.create(**body(station, address))
    return answer.choices[0].message.content


def curl(way: Way, asked: dict) -> str:
    """Ask as the guide's first example does, plain or streamed."""
    options = ("-sS", "--fail-with-body", "-N", "-H", "Content-Type: application/json", "-d", "@-")
    done = subprocess.run(
        ["curl", *options, f"{way.stack.url}/v1/chat/completions"],
        input=json.dumps(asked).encode(),
        capture_output=True,
        check=True,
    )
    if not asked.get("stream"):
        return json.loads(done.stdout)["choices"][0]["message"]["content"]
    *frames, end = [line.removeprefix(b"data: ") for line in done.stdout.splitlines() if line.startswith(b"data: ")]
    assert end == b"[DONE]"
    return "".join(choice["delta"].get("content") or "" for f in frames for choice in json.loads(f)["choices"])


def test_every_form_and_a_streamed_second_turn(way, station):
    url = f"{way.media_url}/{station.model}/media/{station.file}"
    bare = base64.b64encode(station.path.read_bytes()).decode()
    uri = f"data:{mimetypes.guess_type(station.file)[0]};base64,{bare}"

    expected = openai(way, station, url)
    forms = {
        "part with data: URI": openai(way, station, uri),
        "part with base64": openai(way, station, bare),
        "tag with URL": ask(way, station, f"<{station.tag}>{url}</{station.tag}>{QUESTION}"),
        "tag with path": ask(way, station, f"<{station.tag}>{station.path}</{station.tag}>{QUESTION}"),
        "tag with base64": ask(way, station, f"<{station.tag}>{bare}</{station.tag}>{QUESTION}"),
        "list with path": ask(way, station, QUESTION, **{station.field: [str(station.path)]}),
        "list with URL": ask(way, station, QUESTION, **{station.field: [url]}),
        "streamed": ask(way, station, f"<{station.tag}>{url}</{station.tag}>{QUESTION}", stream=True),
    }
    history = [(f"<{station.tag}>{url}</{station.tag}>{QUESTION}", expected)]
    second = ask(way, station, "And then?", history=history)

    assert expected
    assert forms == dict.fromkeys(forms, expected)
    assert ask(way, station, "And then?", history=history, stream=True) == second
    assert second != expected


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
def test_curl_asks_for_a_part_a_tag_and_a_stream(way, station):
    url = f"{way.media_url}/{station.model}/media/{station.file}"
    tagged = [{"role": "user", "content": f"<{station.tag}>{url}</{station.tag}>{QUESTION}"}]
    listed = {"messages": [{"role": "user", "content": QUESTION}], station.field: [url]}

    plain = curl(way, body(station, url))

    assert plain == openai(way, station, url)
    assert curl(way, body(station, url, stream=True)) == plain
    assert curl(way, body(station, url, messages=tagged)) == plain
    assert curl(way, body(station, url, **listed)) == plain
