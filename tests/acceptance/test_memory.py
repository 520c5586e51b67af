"""Workers whose memory is limited by the kernel answer the largest requests that they let through."""

import base64
import io
import json
import sys
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest
from PIL import Image

from baton.embedded import EmbeddedRedis
from tests.acceptance.conftest import Stack
from tests.cases import INTERNVL2

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits what a process takes in this way"),
    pytest.mark.timeout(900),
]

LIMIT_BYTES = 720 * 2**20
"""Torch and what else a worker begins with take about half of it."""
LITTLE = ("--media_cache_bytes", "1000000", "--max_decoded_bytes", "30000000", "--num_decoders", "1")
GOLDEN = ("--model_id_or_path", str(INTERNVL2 / "checkpoint"), "--served_model_name", "golden", *LITTLE)


def command(*options):
    limited = f'ulimit -d {LIMIT_BYTES // 1024} && exec "$@"'
    return ["sh", "-c", limited, "sh", sys.executable, "-m", "worker", *options]


@pytest.fixture(scope="module")
def long_checkpoint(tmp_path_factory):
    """A tiny Llama whose context is longer than its worker has memory for."""
    from tests.worker.models import tiny

    directory = tiny.write_checkpoint("llama", tmp_path_factory.mktemp("long"))
    config = json.loads((directory / "config.json").read_text())
    config["max_position_embeddings"] = 2**20
    (directory / "config.json").write_text(json.dumps(config))
    return directory


@pytest.fixture(scope="module")
def stack(long_checkpoint):
    """A worker with nearly as many rows as fit, and one that chooses its context by itself."""
    with EmbeddedRedis() as server:
        stack = Stack(server.url)
        try:
            stack.start_gateway()
            stack.run(command(*GOLDEN, "--max_num_seqs", "140", "--max_model_len", "2048"))
            long = ("--model_id_or_path", str(long_checkpoint), "--served_model_name", "long")
            stack.run(command(*long, *LITTLE, "--max_num_batched_tokens", "4096"))
            stack.wait_for_models("golden", "long")
            yield stack
        finally:
            stack.stop()


def picture(seed):
    """As many tiles as InternVL2 makes of one, as a data: URI."""
    content = io.BytesIO()
    Image.new("RGB", (400, 300), (seed, 10, 20)).save(content, "PNG")
    return {
        "type": "image_url",
        "image_url": {"url": f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}"},
    }


def context(stack, model):
    told = httpx2.post(f"{stack.url}/tokenize", json={"model": model, "prompt": "a"}, timeout=60)
    return told.json()["max_model_len"]


def test_the_longest_context_that_fits_is_chosen_and_its_largest_requests_are_answered(stack):
    length = context(stack, "long")
    prompts = [[first, *[7] * (length - 5)] for first in (8, 9, 10)]

    answers = burst(lambda prompt: complete(stack, prompt), prompts)

    assert 2048 < length < 2**20
    assert [answer.usage.total_tokens for answer in answers] == [length] * 3


def complete(stack, prompt):
    options = {"max_tokens": 4, "temperature": 0.9, "logprobs": 5, "extra_body": {"ignore_eos": True}}
    return stack.client().completions.create(model="long", prompt=prompt, **options)


def test_a_burst_of_the_largest_pictures_is_answered_in_whole(stack):
    most = (context(stack, "golden") - 200) // (13 * 16)

    answers = burst(lambda seed: look(stack, [picture(seed + i) for i in range(most)]), range(0, 120, 20))

    assert all(answer.usage.prompt_tokens > 13 * 16 * most for answer in answers)
    assert all(answer.usage.completion_tokens == 4 for answer in answers)


def look(stack, pictures):
    options = {"max_tokens": 4, "top_p": 0.9, "frequency_penalty": 0.5, "logprobs": True, "top_logprobs": 20}
    options["extra_body"] = {"ignore_eos": True}
    return stack.client().chat.completions.create(
        model="golden", messages=[{"role": "user", "content": pictures}], **options
    )


def burst(ask, given):
    with ThreadPoolExecutor(len(given)) as pool:
        return list(pool.map(ask, given))
