"""Checkpoints that no family claims, over HTTP: what `generate()` says is what the client reads."""

import json
from functools import cache
from pathlib import Path

import httpx2
import pytest

from baton.embedded import EmbeddedRedis
from shared.job import MediaKind, MediaPart, Message, Role, TextPart
from tests.acceptance.conftest import Stack
from tests.cases import INTERNVL2

pytestmark = pytest.mark.timeout(600)  # whoever comes first starts the workers

LLAMA = "llama3_caller"
NAMES = ("qwen25vl", LLAMA)
NUM_TOKENS = 10
KEY = "secret"
MEDIA = {"image": "photo.jpg", "video": "clip.mp4"}


@pytest.fixture(scope="module")
def directories(tmp_path_factory):
    from tests.worker.models import tiny

    folder = tmp_path_factory.mktemp("generic")
    return {name: str(tiny.write_checkpoint(name, folder / name)) for name in NAMES}


@pytest.fixture(scope="module")
def tuned(directories, tmp_path_factory):
    """Two adapters by peft, the second one with the names of an older transformers; peft's models by path."""
    from tests.worker.models import peft_run

    paths = {name: tmp_path_factory.mktemp(name) for name in ("tuned", "older")}
    models = {
        name: peft_run.tune(Path(directories["qwen25vl"]), path, seed=seed)
        for seed, (name, path) in enumerate(paths.items())
    }
    peft_run.rename(paths["older"], peft_run.OLDER["qwen2vl"])
    return {name: (str(path), models[name]) for name, path in paths.items()}


@pytest.fixture(scope="module")
def stack(directories, tuned):
    """One gateway, and a worker for each checkpoint that is told its directory, and one of them an adapter."""
    with EmbeddedRedis() as server:
        stack = Stack(server.url)
        try:
            stack.start_gateway("--api_key", KEY)
            adapter = ("--lora_modules", f"tuned={tuned['tuned'][0]}")
            given = {"qwen25vl": (*adapter, "--tool_call_parser", "mistral")}
            for name, directory in directories.items():
                stack.start("worker", "--model_id_or_path", directory, "--max_num_seqs", "4", *given.get(name, ()))
            stack.wait_for_models(*NAMES, "tuned", api_key=KEY)
            yield stack
        finally:
            stack.stop()


@pytest.fixture(scope="module")
def generic(stack):
    return stack.client(KEY)


@pytest.fixture(scope="module")
def expected(directories, tuned):
    """What the model's own loop says to the same conversation."""
    from tests.worker.models import mix
    from worker.models.registry import load_model
    from worker.settings import WorkerSettings

    @cache
    def answer(name, *parts, adapter=None):
        given = WorkerSettings(model_id_or_path=directories[name], max_num_seqs=1)
        model = load_model(given, report=lambda words: None)
        media = {
            part: (INTERNVL2 / "media" / part.sha256).read_bytes()
            for part in map(_part, parts)
            if isinstance(part, MediaPart)
        }
        prompt = model.prepare((Message(Role.USER, tuple(map(_part, parts))),), media)
        said = mix.generated(model, prompt, NUM_TOKENS, None if adapter is None else tuned[adapter][1])
        return model.tokenizer.decode(said, skip_special_tokens=True)

    return answer


def _part(word):
    return MediaPart(MediaKind(word), MEDIA[word], word) if word in MEDIA else TextPart(word)


def ask(client, name, media_url, *parts, stream=False):
    content = [
        {"type": f"{word}_url", f"{word}_url": {"url": f"{media_url}/{MEDIA[word]}"}}
        if word in MEDIA
        else {"type": "text", "text": word}
        for word in parts
    ]
    messages = [{"role": "user", "content": content}]
    answer = client.chat.completions.create(model=name, messages=messages, max_tokens=NUM_TOKENS, stream=stream)
    if not stream:
        return answer.choices[0].message.content
    return "".join(chunk.choices[0].delta.content or "" for chunk in answer if chunk.choices)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("qwen25vl", ("image", "what is in this picture?")),
        ("qwen25vl", ("video", "what is in this clip?")),
        ("qwen25vl", ("image", "and", "video", "say <|im_end|> twice")),
        (LLAMA, ("say the words",)),
    ],
)
def test_answer_is_generates_own(generic, expected, media_url, name, parts, stream):
    text = ask(generic, name, media_url, *parts, stream=stream)

    assert text == expected(name, *parts)
    assert len(text) > 3


SEEN = ("image", "what is in this picture?")


def test_adapter_of_the_command_line_answers_as_peft_generates(generic, expected, media_url):
    texts = [ask(generic, name, media_url, *SEEN) for name in ("tuned", "qwen25vl")]

    assert texts == [expected("qwen25vl", *SEEN, adapter="tuned"), expected("qwen25vl", *SEEN)]
    assert len({*texts}) == 2


def test_adapter_of_an_older_transformers_is_loaded_at_run_time(stack, generic, tuned, expected, media_url):
    wanted = {"lora_name": "older", "lora_path": tuned["older"][0], "base_model": "qwen25vl"}
    headers = {"Authorization": f"Bearer {KEY}"}

    answer = httpx2.post(f"{stack.url}/v1/load_lora_adapter", json=wanted, headers=headers, timeout=60)

    assert answer.status_code == 200, answer.text
    assert [m.id for m in generic.models.list().data] == [LLAMA, "qwen25vl", "older", "tuned"]
    assert ask(generic, "older", media_url, *SEEN) == expected("qwen25vl", *SEEN, adapter="older")
    assert ask(generic, "tuned", media_url, *SEEN) == expected("qwen25vl", *SEEN, adapter="tuned")


def test_wishes_of_a_processor_that_counts_pixels_reach_it(generic, media_url):
    content = [{"type": "image_url", "image_url": {"url": f"{media_url}/photo.jpg"}}]
    asked = {"model": "qwen25vl", "messages": [{"role": "user", "content": content}], "max_tokens": 1}

    sizes = [
        generic.chat.completions.create(**asked, extra_body={"mm_processor_kwargs": wishes}).usage.prompt_tokens
        for wishes in ({}, {"max_pixels": 28 * 28 * 9}, {"max_pixels": 28 * 28 * 4})
    ]

    assert sizes == sorted(sizes, reverse=True)
    assert len({*sizes}) == 3


CITY = {"type": "object", "properties": {"city": {"enum": ["Paris", "<|eot_id|>"]}}, "required": ["city"]}
WEATHER = {"name": "weather", "parameters": CITY | {"additionalProperties": False}}
NAMED = {"type": "function", "function": {"name": "weather"}}


@pytest.mark.parametrize("tool_choice", ["required", NAMED])
@pytest.mark.parametrize("name", NAMES)
def test_call_is_forced_in_the_format_of_the_checkpoints_template_or_of_the_operator(generic, name, tool_choice):
    question = {"role": "user", "content": "Will it rain?"}
    tools = [{"type": "function", "function": WEATHER}]
    asked = {"model": name, "tools": tools, "tool_choice": tool_choice, "temperature": 0, "max_tokens": 200}

    def ask(*messages, **more):
        return generic.chat.completions.create(messages=messages, parallel_tool_calls=False, **asked, **more)

    message = ask(question).choices[0].message
    parts = [call for chunk in ask(question, stream=True) for call in chunk.choices[0].delta.tool_calls or ()]
    (call,) = message.tool_calls
    result = {"role": "tool", "tool_call_id": call.id, "content": "rain"}
    again = ask(question, message.model_dump(exclude_none=True), result).choices[0].message

    assert message.content is None
    assert json.loads(call.function.arguments)["city"] in CITY["properties"]["city"]["enum"]
    assert "".join(part.function.arguments for part in parts) == call.function.arguments
    assert len(parts) > 1
    assert (len(call.id) == 9) == (name == "qwen25vl")
    assert again.tool_calls[0].id != call.id
