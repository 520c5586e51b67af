"""Every golden case of MiniCPM-V through the whole HTTP walk."""

import threading
from collections.abc import Callable, Iterator
from functools import cache, partial
from http.server import ThreadingHTTPServer

import pytest
from openai import BadRequestError, OpenAI

from baton.embedded import EmbeddedRedis
from tests.acceptance.conftest import QuietFiles, Stack
from tests.acceptance.test_golden import with_urls
from tests.cases import GOLDEN, MINICPMV, read_cases

CASES = {version: read_cases(folder) for version, folder in MINICPMV.items()}
EVERY = [(version, name) for version, cases in CASES.items() for name in cases]
HOSTILE = [(version, name) for version, name in EVERY if "special" in name]
HONEST = [named for named in EVERY if named not in HOSTILE]
ALTERED = [(v, n) for v, n in HONEST if CASES[v][n].facts["greedy_text_raw"] != CASES[v][n].facts["greedy_text"]]
"""Where the authors drop something of an answer."""


@pytest.fixture(scope="session")
def clients() -> Iterator[Callable[[str], OpenAI]]:
    """One gateway; a version, and the same with its adapter, are started when first asked for."""
    with EmbeddedRedis() as server:
        stack = Stack(server.url)
        try:
            stack.start_gateway()
            yield cache(partial(start, stack))
        finally:
            stack.stop()


def start(stack: Stack, version: str) -> OpenAI:
    base = ("--model_id_or_path", str(MINICPMV[version] / "checkpoint"), "--max_model_len", "2048")
    adapter = ("--ckpt_dir", str(MINICPMV[version] / "adapter"), "--merge_lora", "true")
    stack.start("worker", *base, "--served_model_name", version)
    stack.start("worker", *base, *adapter, "--served_model_name", f"{version}-adapter")
    stack.wait_for_models(version, f"{version}-adapter")
    return stack.client()


@pytest.fixture(scope="session")
def media_urls() -> Iterator[dict[str, str]]:
    """Where the golden pictures and clips of each version are."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietFiles, directory=str(GOLDEN))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        root = f"http://127.0.0.1:{server.server_port}"
        yield {version: f"{root}/{folder.name}/media" for version, folder in MINICPMV.items()}
        server.shutdown()


def request_of(version: str, name: str, media_urls: dict[str, str]) -> dict[str, object]:
    """The case as an OpenAI client sends it."""
    facts = CASES[version][name].facts
    return {
        "model": f"{version}-adapter" if facts["adapter"] else version,
        "max_tokens": facts["max_new_tokens"],
        "temperature": 0,
        "extra_body": {"mm_processor_kwargs": facts.get("chat_options", {})},
        "messages": [with_urls(message, media_urls[version]) for message in facts["messages"]],
    }


def expected_of(version: str, name: str) -> dict:
    facts = CASES[version][name].facts
    return facts | facts.get("full_attention", {})


@pytest.mark.parametrize(("version", "name"), HONEST)
def test_case_answers_as_the_authors_code_does(clients, media_urls, version, name):
    expected = expected_of(version, name)

    completion = clients(version).chat.completions.create(**request_of(version, name, media_urls))

    assert completion.choices[0].message.content == expected["greedy_text"]
    assert completion.choices[0].finish_reason == ("stop" if expected["stopped"] else "length")
    assert completion.usage.prompt_tokens == len(expected["input_ids"])
    assert completion.usage.completion_tokens == len(expected["greedy_ids"])


@pytest.mark.parametrize(("version", "name"), ALTERED)
def test_streamed_answer_is_the_plain_one(clients, media_urls, version, name):
    asked = request_of(version, name, media_urls)

    chunks = list(clients(version).chat.completions.create(**asked, stream=True))

    deltas = [chunk.choices[0].delta.content or "" for chunk in chunks]
    assert "".join(deltas) == expected_of(version, name)["greedy_text"]


@pytest.mark.parametrize(("version", "name"), HOSTILE)
def test_typed_control_tokens_stay_text(clients, media_urls, version, name):
    """The authors' prompt is shorter, because there the typed strings become single control tokens."""
    completion = clients(version).chat.completions.create(**request_of(version, name, media_urls))

    assert completion.usage.prompt_tokens > len(CASES[version][name].facts["input_ids"])


@pytest.mark.parametrize(
    ("version", "wish", "words"),
    [
        ("2.5", {"use_image_id": False}, "it knows max_slice_nums"),
        ("2.5", {"num_frames": 4}, "it knows max_slice_nums"),
        ("2.6", {"max_num": 4}, "it knows max_slice_nums, num_frames, use_image_id"),
        ("2.6", {"max_slice_nums": 10}, "at most 9 slices"),
    ],
)
def test_wish_that_the_version_cannot_honour_is_refused_by_name(clients, version, wish, words):
    with pytest.raises(BadRequestError) as refusal:
        clients(version).chat.completions.create(
            model=version,
            messages=[{"role": "user", "content": "hi"}],
            extra_body={"mm_processor_kwargs": wish},
        )

    assert refusal.value.param == f"mm_processor_kwargs.{next(iter(wish))}"
    assert words in refusal.value.message


def test_first_version_takes_no_clips(clients, media_urls):
    clip = {"type": "video_url", "video_url": {"url": f"{media_urls['2.6']}/clip.mp4"}}

    with pytest.raises(BadRequestError) as refusal:
        clients("2.5").chat.completions.create(model="2.5", messages=[{"role": "user", "content": [clip]}])

    assert "takes text and image only, no video" in refusal.value.message
    assert refusal.value.param == "messages[0].content[0].video_url"
