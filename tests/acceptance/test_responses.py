"""The Responses API over real models: pictures, recordings, and conversations that go on."""

import base64
from typing import Literal

import pytest
from pydantic import BaseModel

from tests.acceptance.conftest import MODEL
from tests.cases import INTERNVL2, QWEN2_AUDIO, read_cases

pytestmark = pytest.mark.timeout(600)  # whoever comes first starts the workers

CASES = read_cases(INTERNVL2)
SAID = {"user": "input_text", "assistant": "output_text", "system": "input_text"}


def request_of(case, media_url: str) -> dict[str, object]:
    """The golden case as a client of the Responses API sends it."""
    messages = case.facts["messages"]
    system = [message["content"] for message in messages if message["role"] == "system"]
    return {
        "model": case.facts["adapter"] or MODEL,
        "instructions": system[0] if system else None,
        "max_output_tokens": case.facts["max_new_tokens"],
        "temperature": 0,
        "input": [said(message, media_url) for message in messages if message["role"] != "system"],
    }


def said(message: dict, media_url: str) -> dict:
    if isinstance(message["content"], str):
        return message
    parts = []
    for part in message["content"]:
        if part["type"] == "text":
            parts.append({"type": SAID[message["role"]], "text": part["text"]})
        else:
            url = f"{media_url}/{part['image_url']['url'].removeprefix('media/')}"
            parts.append({"type": "input_image", "image_url": url, "detail": "auto"})
    return message | {"content": parts}


@pytest.mark.parametrize("name", ["image_photo", "multiturn_image_both", "system_image", "adapter_image"])
def test_plain_and_streamed_response_say_what_the_authors_code_does(client, media_url, name):
    case = CASES[name]

    plain = client.responses.create(**request_of(case, media_url))
    events = list(client.responses.create(**request_of(case, media_url), stream=True))

    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert plain.output_text == "".join(deltas) == events[-1].response.output_text == case.facts["greedy_text"]
    ends = {"stop": "completed", "length": "incomplete"}
    assert plain.status == events[-1].response.status == ends[case.facts["finish"]]
    assert plain.usage.input_tokens == case.facts["prompt_tokens"]
    assert plain.usage.output_tokens == len(case.facts["greedy_ids"])


def test_next_response_answers_as_the_whole_conversation_would(client):
    content = (INTERNVL2 / "media" / "photo.jpg").read_bytes()
    url = f"data:image/jpeg;base64,{base64.b64encode(content).decode()}"
    asked = {"model": MODEL, "temperature": 0, "max_output_tokens": 8}
    picture = [{"type": "input_image", "image_url": url}, {"type": "input_text", "text": "What is this?"}]

    first = client.responses.create(**asked, input=[{"role": "user", "content": picture}])
    second = client.responses.create(**asked, input="And where?", previous_response_id=first.id)

    parts = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "What is this?"}]
    messages = [
        {"role": "user", "content": parts},
        {"role": "assistant", "content": first.output_text},
        {"role": "user", "content": "And where?"},
    ]
    whole = client.chat.completions.create(model=MODEL, temperature=0, max_tokens=8, messages=messages)
    assert second.output_text == whole.choices[0].message.content
    assert second.usage.input_tokens == whole.usage.prompt_tokens


def test_recording_is_heard(fleet):
    case = read_cases(QWEN2_AUDIO)["audio"]
    walk = fleet.walk("qwen2-audio-7b-instruct")
    parts = [_heard(part) for part in case.facts["messages"][-1]["content"]]

    response = walk.client.responses.create(
        model=walk.model,
        temperature=0,
        max_output_tokens=case.facts["max_new_tokens"],
        input=[*case.facts["messages"][:-1], {"role": "user", "content": parts}],
    )

    assert response.output_text == case.facts["greedy_text"]


def _heard(part: dict) -> dict:
    if part["type"] == "text":
        return {"type": "input_text", "text": part["text"]}
    content = (QWEN2_AUDIO / part["audio_url"]["url"]).read_bytes()
    return {"type": "input_audio", "input_audio": {"data": base64.b64encode(content).decode(), "format": "wav"}}


class Colour(BaseModel):
    colour: Literal["red", "blue"]


def test_parsed_response_is_of_its_type(client):
    response = client.responses.parse(model=MODEL, temperature=0, input="Which colour?", text_format=Colour)

    assert isinstance(response.output_parsed, Colour)
    assert response.status == "completed"
