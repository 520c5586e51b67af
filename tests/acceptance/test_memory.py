"""Workers whose memory is limited by the kernel answer the largest requests that they let through."""

import base64
import io
import json
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest
from openai import BadRequestError
from PIL import Image

from baton.embedded import EmbeddedRedis
from tests.acceptance.conftest import Stack
from tests.cases import INTERNVL2

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits what a process takes in this way"),
    pytest.mark.timeout(900),
]

TILES = 13
LIMIT_BYTES = 720 * 2**20
"""Torch and what else a worker begins with take about half of it."""
MODEL = "golden"
MOST_BYTES = 18_000_000
"""Of the media of one request; nine pictures, as the model sees them, are a bit less."""
OPTIONS = (
    "--served_model_name",
    MODEL,
    "--media_cache_bytes",
    "1000000",
    "--max_decoded_bytes",
    f"{MOST_BYTES}",
    "--num_decoders",
    "1",
)


def command(*options):
    # The limit counts what threads reserve for their stacks and heaps, which hardly any memory is used of.
    limited = f'export MALLOC_ARENA_MAX=1; ulimit -s 2048 && ulimit -d {LIMIT_BYTES // 1024} && exec "$@"'
    return ["sh", "-c", limited, "sh", sys.executable, "-m", "worker", *options]


@pytest.fixture(scope="module")
def long_checkpoint(tmp_path_factory):
    """A model whose context is longer than its worker has memory for."""
    directory = tmp_path_factory.mktemp("long") / MODEL
    shutil.copytree(INTERNVL2 / "checkpoint", directory)
    config = json.loads((directory / "config.json").read_text())
    config["llm_config"]["max_position_embeddings"] = 2**20
    (directory / "config.json").write_text(json.dumps(config))
    return str(directory)


@pytest.fixture(scope="module")
def stack(long_checkpoint):
    """A worker that chooses its context by itself."""
    with EmbeddedRedis() as server:
        stack = Stack(server.url)
        try:
            stack.start_gateway()
            stack.run(command("--model_id_or_path", long_checkpoint, "--max_num_seqs", "64", *OPTIONS))
            stack.wait_for_models(MODEL)
            yield stack
        finally:
            stack.stop()


def picture(seed):
    """Of as many tiles as InternVL2 makes of one, as a data: URI."""
    content = io.BytesIO()
    Image.new("RGB", (400, 300), (seed, 10, 20)).save(content, "PNG")
    return {
        "type": "image_url",
        "image_url": {"url": f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}"},
    }


def test_the_longest_context_that_fits_is_chosen_and_its_largest_requests_are_answered(stack):
    told = httpx2.post(f"{stack.url}/tokenize", json={"model": MODEL, "prompt": "a"}, timeout=60)
    length = told.json()["max_model_len"]
    prompts = [[first, *[7] * (length - 5)] for first in (8, 9, 10)]

    answers = burst(lambda prompt: complete(stack, prompt), prompts)

    assert 2048 < length < 2**20
    assert [answer.usage.total_tokens for answer in answers] == [length] * 3


def complete(stack, prompt):
    options = {"max_tokens": 4, "temperature": 0.9, "logprobs": 5, "extra_body": {"ignore_eos": True}}
    return stack.client().completions.create(model=MODEL, prompt=prompt, **options)


def test_a_burst_of_the_most_pictures_is_answered_in_whole(stack):
    answers = burst(lambda seed: look(stack, seed, 9), range(0, 120, 20))

    assert all(answer.usage.prompt_tokens > 9 * TILES * 16 for answer in answers)
    assert all(answer.usage.completion_tokens == 4 for answer in answers)


def test_more_pictures_than_were_planned_for_are_refused_and_the_next_request_is_answered(stack):
    with pytest.raises(
        BadRequestError, match=rf"media take {10 * TILES * 3 * 112**2 * 4} bytes .* planned for"
    ) as refusal:
        look(stack, 0, 10)

    assert refusal.value.param == "messages"
    assert look(stack, 0, 9).usage.completion_tokens == 4


def look(stack, seed, count):
    options = {"max_tokens": 4, "top_p": 0.9, "frequency_penalty": 0.5, "logprobs": True, "top_logprobs": 20}
    options["extra_body"] = {"ignore_eos": True}
    pictures = [picture(seed + index) for index in range(count)]
    return stack.client().chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": pictures}], **options
    )


def burst(ask, given):
    with ThreadPoolExecutor(len(given)) as pool:
        return list(pool.map(ask, given))
