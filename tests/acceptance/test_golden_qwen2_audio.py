"""Every golden case of Qwen2-Audio through the whole HTTP walk, and every form in which a recording may come."""

import base64
import threading
from functools import partial
from http.server import ThreadingHTTPServer

import pytest
from openai import BadRequestError

from baton.embedded import EmbeddedRedis
from tests.acceptance.conftest import QuietFiles, Stack
from tests.acceptance.test_golden import with_urls
from tests.cases import QWEN2_AUDIO, read_cases

MODEL, ADAPTER = "qwen2-audio-7b-instruct", "adapter"
CASES = read_cases(QWEN2_AUDIO)
HOSTILE = [name for name in CASES if "special" in name or "literal" in name]
HONEST = [name for name in CASES if name not in HOSTILE]
MEDIA = QWEN2_AUDIO / "media"
HEAR = "What do you hear?"


@pytest.fixture(scope="session")
def audio_client():
    """One gateway; the golden model, and the same with its adapter, each on a worker of its own."""
    with EmbeddedRedis() as server:
        stack = Stack(server.url)
        stack.start_gateway("--allowed_local_media_path", str(MEDIA))
        stack.start("worker", "--model_id_or_path", str(QWEN2_AUDIO / "checkpoint"))
        base = ("--model_id_or_path", str(QWEN2_AUDIO / "checkpoint"))
        stack.start(
            "worker",
            "--ckpt_dir",
            str(QWEN2_AUDIO / ADAPTER),
            "--merge_lora",
            "true",
            *base,
            "--served_model_name",
            ADAPTER,
        )
        stack.wait_for_models(MODEL, ADAPTER)
        yield stack.client()
        stack.stop()


@pytest.fixture(scope="session")
def audio_url():
    """The golden recordings on an HTTP server of this machine."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietFiles, directory=str(MEDIA))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def request_of(case, media_url):
    """The case as an OpenAI client sends it."""
    return {
        "model": case.facts["adapter"] or MODEL,
        "max_tokens": case.facts["max_new_tokens"],
        "temperature": 0,
        "messages": [with_urls(message, media_url) for message in case.facts["messages"]],
    }


def ask(client, content, **fields):
    messages = [{"role": "user", "content": content}]
    completion = client.chat.completions.create(
        model=MODEL, messages=messages, temperature=0, max_tokens=12, extra_body=fields
    )
    return completion.choices[0].message.content


@pytest.mark.parametrize("name", HONEST)
def test_case_answers_as_the_reference_does(audio_client, audio_url, name):
    facts = CASES[name].facts

    completion = audio_client.chat.completions.create(**request_of(CASES[name], audio_url))

    assert completion.choices[0].message.content == facts["greedy_text"]
    assert completion.choices[0].finish_reason == facts["finish"]
    assert completion.usage.prompt_tokens == len(facts["input_ids"])
    assert completion.usage.completion_tokens == len(facts["greedy_ids"])


def test_streamed_answers_are_the_plain_ones(audio_client, audio_url):
    for name in ("planted", "two_audios", "audio_adapter"):
        chunks = list(audio_client.chat.completions.create(**request_of(CASES[name], audio_url), stream=True))

        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == CASES[name].facts["greedy_text"]
        assert chunks[-1].choices[0].finish_reason == CASES[name].facts["finish"]


@pytest.mark.parametrize("name", HOSTILE)
def test_typed_control_tokens_stay_text(audio_client, audio_url, name):
    """The reference's prompt is shorter, because there the typed strings become single control tokens."""
    completion = audio_client.chat.completions.create(**request_of(CASES[name], audio_url))

    assert completion.usage.prompt_tokens > len(CASES[name].facts["input_ids"])


def test_every_form_of_a_recording_gives_the_same_answer(audio_client, audio_url):
    expected = CASES["audio"].facts["greedy_text"]
    path, url = MEDIA / "speech.wav", f"{audio_url}/speech.wav"
    encoded = base64.b64encode(path.read_bytes()).decode()
    text = {"type": "text", "text": HEAR}

    addresses = (url, f"data:audio/wav;base64,{encoded}", encoded, str(path), f"file://{path}", "speech.wav")
    for address in addresses:
        assert expected == ask(audio_client, [{"type": "audio_url", "audio_url": {"url": address}}, text])
    assert expected == ask(audio_client, [{"type": "audio_url", "audio_url": url}, text])
    own = {"type": "input_audio", "input_audio": {"data": encoded, "format": "wav"}}
    assert expected == ask(audio_client, [own, text])
    for address in (url, encoded, "speech.wav"):
        assert expected == ask(audio_client, f"<audio>{address}</audio>{HEAR}")
    assert expected == ask(audio_client, f"<audio>{HEAR}", audios=[url])
    assert expected == ask(audio_client, HEAR, audios=encoded)


@pytest.mark.parametrize(
    ("part", "param"),
    [
        ({"type": "input_audio", "input_audio": {"data": "bm8gc291bmQ=", "format": "wav"}}, "input_audio"),
        ({"type": "input_audio", "input_audio": {"data": "http://127.0.0.1/", "format": "wav"}}, "input_audio"),
        ({"type": "audio_url", "audio_url": {"url": "../checkpoint/config.json"}}, "audio_url"),
        ({"type": "image_url", "image_url": {"url": "speech.wav"}}, "image_url"),
    ],
)
def test_what_is_no_recording_is_refused_by_name(audio_client, part, param):
    with pytest.raises(BadRequestError) as refusal:
        ask(audio_client, [{"type": "text", "text": HEAR}, part])

    assert refusal.value.param == f"messages[0].content[1].{param}"
