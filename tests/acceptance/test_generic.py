"""Checkpoints that no family claims, over HTTP: what `generate()` says is what the client reads."""

from functools import cache

import pytest

from baton.embedded import EmbeddedRedis
from shared.job import MediaKind, MediaPart, Message, Role, TextPart
from tests.acceptance.conftest import Stack
from tests.cases import INTERNVL2

NAMES = ("qwen25vl", "llama")
NUM_TOKENS = 10
MEDIA = {"image": "photo.jpg", "video": "clip.mp4"}


@pytest.fixture(scope="module")
def directories(tmp_path_factory):
    from tests.worker.models import tiny

    folder = tmp_path_factory.mktemp("generic")
    return {name: str(tiny.write_checkpoint(name, folder / name)) for name in NAMES}


@pytest.fixture(scope="module")
def generic(directories):
    """One gateway, and a worker for each checkpoint that is told nothing but its directory."""
    with EmbeddedRedis() as server:
        stack = Stack(server.url)
        stack.start_gateway()
        for directory in directories.values():
            stack.start("worker", "--model_id_or_path", directory, "--max_num_seqs", "4")
        stack.wait_for_models(*NAMES)
        yield stack.client()
        stack.stop()


@pytest.fixture(scope="module")
def expected(directories):
    """What the model's own loop says to the same conversation."""
    from tests.worker.models import mix
    from worker.models.registry import load_model
    from worker.settings import WorkerSettings

    @cache
    def answer(name, *parts):
        given = WorkerSettings(model_id_or_path=directories[name], max_num_seqs=1)
        model = load_model(given, report=lambda words: None)
        media = {
            part: (INTERNVL2 / "media" / part.sha256).read_bytes()
            for part in map(_part, parts)
            if isinstance(part, MediaPart)
        }
        prompt = model.prepare((Message(Role.USER, tuple(map(_part, parts))),), media)
        return model.tokenizer.decode(mix.generated(model, prompt, NUM_TOKENS), skip_special_tokens=True)

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
        ("llama", ("say the words",)),
    ],
)
def test_answer_is_generates_own(generic, expected, media_url, name, parts, stream):
    text = ask(generic, name, media_url, *parts, stream=stream)

    assert text == expected(name, *parts)
    assert len(text) > 3
