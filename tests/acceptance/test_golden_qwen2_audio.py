"""Every golden case of Qwen2-Audio through the whole HTTP walk, and every form in which a recording may come."""

import base64
import shutil

import pytest
from openai import BadRequestError

from tests.acceptance import guide
from tests.acceptance.golden_walk import Walk, check_together, safe_answer
from tests.cases import QWEN2_AUDIO, read_cases

pytestmark = pytest.mark.timeout(600)  # whoever comes first starts the workers

MODEL = "qwen2-audio-7b-instruct"
CASES = read_cases(QWEN2_AUDIO)
HOSTILE = [name for name in CASES if "special" in name or "literal" in name]
HONEST = [name for name in CASES if name not in HOSTILE]
MEDIA = QWEN2_AUDIO / "media"
AUDIO = 623
"""The placeholder of the golden checkpoint's configuration."""
HEAR = "What do you hear?"


@pytest.fixture(scope="module")
def walk(fleet) -> Walk:
    return fleet.walk(MODEL)


def ask(client, content, **fields):
    messages = [{"role": "user", "content": content}]
    completion = client.chat.completions.create(
        model=MODEL, messages=messages, temperature=0, max_tokens=12, extra_body=fields
    )
    return completion.choices[0].message.content


@pytest.mark.parametrize("name", HONEST)
def test_case_answers_as_the_reference_does(walk, name):
    facts = CASES[name].facts

    completion = walk.ask(CASES[name])

    assert completion.choices[0].message.content == facts["greedy_text"]
    assert completion.choices[0].finish_reason == facts["finish"]
    assert completion.usage.prompt_tokens == len(facts["input_ids"])
    assert completion.usage.completion_tokens == len(facts["greedy_ids"])
    assert completion.usage.prompt_tokens_details.audio_tokens == facts["input_ids"].count(AUDIO)


def test_streamed_answers_are_the_plain_ones(walk):
    for name in ("planted", "two_audios", "audio_adapter"):
        facts = CASES[name].facts

        assert walk.stream(CASES[name]) == (facts["greedy_text"], facts["finish"], len(facts["greedy_ids"]))


@pytest.mark.parametrize("name", HOSTILE)
def test_typed_control_tokens_stay_text(walk, name):
    """The reference's prompt is shorter, because there the typed strings become single control tokens."""
    from tests.worker.models.golden_audio import golden_audio_model

    completion = walk.ask(CASES[name])

    seen = completion.usage.prompt_tokens, completion.choices[0].message.content
    assert seen == safe_answer(CASES[name], golden_audio_model())
    assert completion.usage.prompt_tokens > len(CASES[name].facts["input_ids"])


def test_every_form_of_a_recording_gives_the_same_answer(walk):
    expected = CASES["audio"].facts["greedy_text"]
    path, url = MEDIA / "speech.wav", f"{walk.media_url}/speech.wav"
    encoded = base64.b64encode(path.read_bytes()).decode()
    text = {"type": "text", "text": HEAR}

    addresses = (url, f"data:audio/wav;base64,{encoded}", encoded, str(path), f"file://{path}", "speech.wav")
    for address in addresses:
        assert expected == ask(walk.client, [{"type": "audio_url", "audio_url": {"url": address}}, text])
    assert expected == ask(walk.client, [{"type": "audio_url", "audio_url": url}, text])
    own = {"type": "input_audio", "input_audio": {"data": encoded, "format": "wav"}}
    assert expected == ask(walk.client, [own, text])
    for address in (url, encoded, "speech.wav"):
        assert expected == ask(walk.client, f"<audio>{address}</audio>{HEAR}")
    assert expected == ask(walk.client, f"<audio>{HEAR}", audios=[url])
    assert expected == ask(walk.client, HEAR, audios=encoded)


@pytest.mark.parametrize(
    ("part", "param"),
    [
        ({"type": "input_audio", "input_audio": {"data": "bm8gc291bmQ=", "format": "wav"}}, "input_audio"),
        ({"type": "input_audio", "input_audio": {"data": "http://127.0.0.1/", "format": "wav"}}, "input_audio"),
        ({"type": "audio_url", "audio_url": {"url": "../checkpoint/config.json"}}, "audio_url"),
        ({"type": "image_url", "image_url": {"url": "speech.wav"}}, "image_url"),
    ],
)
def test_what_is_no_recording_is_refused_by_name(walk, part, param):
    with pytest.raises(BadRequestError) as refusal:
        ask(walk.client, [{"type": "text", "text": HEAR}, part])

    assert refusal.value.param == f"messages[0].content[1].{param}"


def test_base_and_adapters_answer_together_as_the_authors_code_does(walk):
    check_together(walk, CASES)


@pytest.mark.parametrize("station", guide.stations("qwen2-audio-7b-instruct"), ids=lambda station: station.field)
def test_every_form_and_a_streamed_second_turn_of_the_guide(walk, station):
    guide.check_every_form_and_a_streamed_second_turn(walk, station)


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
@pytest.mark.parametrize("station", guide.stations("qwen2-audio-7b-instruct"), ids=lambda station: station.field)
def test_curl_asks_as_the_guide_does(walk, station):
    guide.check_curl(walk, station)


def transcribe(walk, name="speech.wav", **fields):
    with (MEDIA / name).open("rb") as recording:
        return walk.client.audio.transcriptions.create(model=MODEL, file=recording, **fields)


def test_transcription_is_what_the_chat_answers(walk):
    encoded = base64.b64encode((MEDIA / "speech.wav").read_bytes()).decode()
    instruction = "Detect the language and recognize the speech: The language is en. Style and context: birds"
    content = [{"type": "audio_url", "audio_url": encoded}, {"type": "text", "text": instruction}]
    chat = walk.client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": content}], temperature=0
    )
    fields = {"language": "en", "prompt": "birds"}

    plain = transcribe(walk, **fields)
    events = list(transcribe(walk, stream=True, **fields))

    assert plain.text == chat.choices[0].message.content == transcribe(walk, response_format="text", **fields)
    assert "".join(event.delta for event in events[:-1]) == events[-1].text == plain.text
    assert {event.type for event in events[:-1]} == {"transcript.text.delta"}
    assert events[-1].type == "transcript.text.done"
    assert events[-1].usage.model_dump() == plain.usage.model_dump()
    assert plain.usage.input_tokens == chat.usage.prompt_tokens
    assert plain.usage.input_token_details.audio_tokens == chat.usage.prompt_tokens_details.audio_tokens > 10


@pytest.mark.parametrize(
    ("name", "fields", "param"),
    [
        ("speech.wav", {"response_format": "srt"}, "response_format"),
        ("speech.wav", {"response_format": "verbose_json"}, "response_format"),
        ("speech.wav", {"temperature": 2}, "temperature"),
        ("speech.wav", {"language": "<|en|>"}, "language"),
        ("speech.wav", {"timestamp_granularities": ["word"]}, "timestamp_granularities"),
        ("speech.wav", {"include": ["logprobs"]}, "include"),
        ("speech.wav", {"extra_body": {"n": 2}}, "n"),
        ("../cases/audio.json", {}, "file"),
    ],
)
def test_transcription_that_can_not_be_had_is_refused_by_name(walk, name, fields, param, tmp_path):
    with pytest.raises(BadRequestError) as refusal:
        transcribe(walk, name, **fields)

    assert refusal.value.param == param
