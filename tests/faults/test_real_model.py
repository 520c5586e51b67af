"""A worker with a real, tiny model is killed: pictures, adapters, draws and JSON go on as if nothing had been."""

import asyncio
import base64
import json
import os
import random
import signal

import pytest
from openai import AsyncOpenAI

from baton.embedded import EmbeddedRedis
from tests.acceptance.conftest import ADAPTERS, MODEL, Stack
from tests.cases import INTERNVL2

NUM_TOKENS = 150
PICTURE = base64.b64encode((INTERNVL2 / "media" / "square.png").read_bytes()).decode()
SEEN = [
    {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PICTURE}"}},
    {"type": "text", "text": "Describe it."},
]
WORDS = {"type": "array", "items": {"type": "string", "minLength": 3, "maxLength": 5}, "minItems": 12, "maxItems": 12}
STRUCTURED = {
    "model": MODEL,
    "temperature": 1,
    "seed": 7,
    "messages": [{"role": "user", "content": "Tell me a story."}],
    "response_format": {"type": "json_schema", "json_schema": {"name": "words", "schema": WORDS}},
}
LOAD = [
    {"model": model, "temperature": temperature, "seed": 7, "messages": [{"role": "user", "content": content}]}
    for model in (MODEL, *ADAPTERS)
    for temperature, content in ((0, SEEN), (1, SEEN), (1, "Tell me a story."))
] + [STRUCTURED]


@pytest.fixture
def stack():
    with EmbeddedRedis() as redis:
        stack = Stack(redis.url)
        stack.start_gateway()
        yield stack
        stack.stop()


@pytest.mark.timeout(600)
async def test_pictures_adapters_and_draws_survive_their_worker(stack):
    adapters = [f"{name}={INTERNVL2 / name}" for name in ADAPTERS]
    options = ("--lora_modules", *adapters, "--lease_s", "1.5", "--max_num_seqs", "8")
    first = stack.start_internvl2(MODEL, *options)
    await asyncio.to_thread(stack.wait_for_models, MODEL, *ADAPTERS)
    async with AsyncOpenAI(base_url=f"{stack.url}/v1", api_key="-", max_retries=0, timeout=90) as client:
        undisturbed = await asyncio.gather(*(follow(client, question) for question in LOAD))

        has_begun = asyncio.Event()
        asked = [asyncio.create_task(follow(client, question, has_begun)) for question in LOAD]
        await has_begun.wait()
        await asyncio.sleep(random.Random(0).uniform(0, 0.3))
        os.kill(first.pid, signal.SIGKILL)
        is_cut_off = not any(task.done() for task in asked)
        second = stack.start_internvl2(MODEL, *options)
        disturbed = await asyncio.gather(*asked)

    assert is_cut_off
    assert second.poll() is None
    assert disturbed == undisturbed
    assert len(set(undisturbed)) == len(LOAD)
    assert [3 <= len(word) <= 5 for word in json.loads(disturbed[-1])] == [True] * 12


async def follow(client: AsyncOpenAI, question: dict, has_begun: asyncio.Event | None = None) -> str:
    text = ""
    async with await client.chat.completions.create(**question, max_tokens=NUM_TOKENS, stream=True) as stream:
        async for chunk in stream:
            text += chunk.choices[0].delta.content or ""
            if has_begun is not None and text:
                has_begun.set()
    return text
