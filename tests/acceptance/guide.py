"""The deployment guide's walk-through for every model; each golden set's tests walk it with their own."""

import base64
import json
import mimetypes
import subprocess
from dataclasses import dataclass
from pathlib import Path

from baton import XRequestConfig, inference_client
from tests.acceptance.golden_walk import Walk
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


def stations(model: str) -> list[Station]:
    """The media of the guide that a model takes."""
    return [station for station in STATIONS if station.model == model]


def ask(walk: Walk, station: Station, query: str, stream: bool = False, **more) -> str:
    """Ask through the Python client, as the guide's scripts do."""
    config = XRequestConfig(max_tokens=NUM_TOKENS, temperature=0, stream=stream)
    answer = inference_client(station.model, query, request_config=config, port=str(walk.stack.port), **more)
    if stream:
        return "".join(chunk.choices[0].delta.content for chunk in answer)
    return answer.choices[0].message.content


def body(station: Station, address: str, **more) -> dict:
    """One question about one medium, as OpenAI writes it."""
    content = [{"type": station.part, station.part: {"url": address}}, {"type": "text", "text": QUESTION}]
    messages = [{"role": "user", "content": content}]
    return {"model": station.model, "messages": messages, "max_tokens": NUM_TOKENS, "temperature": 0} | more


def openai(walk: Walk, station: Station, address: str) -> str:
    answer = walk.client.chat.completions.create(**body(station, address))
    return answer.choices[0].message.content


def curl(walk: Walk, asked: dict) -> str:
    """Ask as the guide's first example does, plain or streamed."""
    options = ("-sS", "--fail-with-body", "-N", "-H", "Content-Type: application/json", "-d", "@-")
    done = subprocess.run(
        ["curl", *options, f"{walk.stack.url}/v1/chat/completions"],
        input=json.dumps(asked).encode(),
        capture_output=True,
        check=True,
    )
    if not asked.get("stream"):
        return json.loads(done.stdout)["choices"][0]["message"]["content"]
    *frames, end = [line.removeprefix(b"data: ") for line in done.stdout.splitlines() if line.startswith(b"data: ")]
    assert end == b"[DONE]"
    return "".join(choice["delta"].get("content") or "" for f in frames for choice in json.loads(f)["choices"])


def check_every_form_and_a_streamed_second_turn(walk: Walk, station: Station) -> None:
    url = f"{walk.media_url}/{station.file}"
    bare = base64.b64encode(station.path.read_bytes()).decode()
    uri = f"data:{mimetypes.guess_type(station.file)[0]};base64,{bare}"

    expected = openai(walk, station, url)
    forms = {
        "part with data: URI": openai(walk, station, uri),
        "part with base64": openai(walk, station, bare),
        "tag with URL": ask(walk, station, f"<{station.tag}>{url}</{station.tag}>{QUESTION}"),
        "tag with path": ask(walk, station, f"<{station.tag}>{station.path}</{station.tag}>{QUESTION}"),
        "tag with base64": ask(walk, station, f"<{station.tag}>{bare}</{station.tag}>{QUESTION}"),
        "list with path": ask(walk, station, QUESTION, **{station.field: [str(station.path)]}),
        "list with URL": ask(walk, station, QUESTION, **{station.field: [url]}),
        "streamed": ask(walk, station, f"<{station.tag}>{url}</{station.tag}>{QUESTION}", stream=True),
    }
    history = [(f"<{station.tag}>{url}</{station.tag}>{QUESTION}", expected)]
    second = ask(walk, station, "And then?", history=history)

    assert expected
    assert forms == dict.fromkeys(forms, expected)
    assert ask(walk, station, "And then?", history=history, stream=True) == second
    assert second != expected


def check_curl(walk: Walk, station: Station) -> None:
    """Ask for a part, plain and streamed, a tag and a list."""
    url = f"{walk.media_url}/{station.file}"
    tagged = [{"role": "user", "content": f"<{station.tag}>{url}</{station.tag}>{QUESTION}"}]
    listed = {"messages": [{"role": "user", "content": QUESTION}], station.field: [url]}

    plain = curl(walk, body(station, url))

    assert plain == openai(walk, station, url)
    assert curl(walk, body(station, url, stream=True)) == plain
    assert curl(walk, body(station, url, messages=tagged)) == plain
    assert curl(walk, body(station, url, **listed)) == plain
