"""What an answer says of itself: who gave it, under which name, and what its prompt was made of."""

import json

import httpx2
import pytest
from openai import BadRequestError

from shared.events import Finished, FinishReason, Started, Usage
from tests.api.conftest import MODEL, asking

HELLO = [{"role": "user", "content": "hi"}]
FINGERPRINT = "fp_0123456789"


def ask(client, **fields):
    return client.chat.completions.create(**{"model": MODEL, "messages": HELLO, **fields})


async def answer(worker):
    """Answer one job as a worker does that knows its fingerprint and what the prompt is made of."""
    job = await worker.take()
    start = Started(**worker.named(job), prompt_tokens=9, model=MODEL, created_s=job.created_s, fingerprint=FINGERPRINT)
    await worker.publish(job, start)
    await worker.say(job, "word")
    usage = Usage(9, 1, cached_tokens=2, audio_tokens=3, image_tokens=4)
    await worker.publish(job, Finished(**worker.named(job), reason=FinishReason.STOP, usage=usage))
    return job


async def test_fingerprint_is_the_same_streamed_plain_and_resumed(client, gateway, worker):
    async with asking(ask(client)) as plain:
        await answer(worker)
        whole = await plain
    async with asking(ask(client, stream=True)) as opening:
        job = await answer(worker)
        chunks = [chunk async for chunk in await opening]
    url = f"{gateway.url}/v1/chat/completions/{job.id}/events"
    async with httpx2.AsyncClient(trust_env=False) as http:
        resumed = (await http.get(url, headers={"Last-Event-ID": "1"})).text

    again = [json.loads(line[6:]) for line in resumed.splitlines() if line.startswith("data: {")]
    assert whole.system_fingerprint == FINGERPRINT
    assert {chunk.system_fingerprint for chunk in chunks} == {FINGERPRINT}
    assert [chunk["system_fingerprint"] for chunk in again] == [FINGERPRINT] * 2
    assert whole.service_tier == chunks[-1].service_tier == "default"
    assert whole.choices[0].message.annotations == []


async def test_usage_tells_what_the_prompt_is_made_of(client, worker):
    async with asking(ask(client)) as plain:
        await answer(worker)
        details = (await plain).usage.prompt_tokens_details

    assert (details.audio_tokens, details.cached_tokens, details.image_tokens) == (3, 2, 4)


async def test_worker_without_a_fingerprint_gives_null(client, worker):
    async with asking(ask(client)) as plain:
        await worker.answer("ok")
        assert (await plain).system_fingerprint is None


async def test_template_variables_reach_the_job(client, worker):
    variables = {"enable_thinking": False, "budget": 3, "share": 0.5, "mood": "glad"}
    async with asking(ask(client, extra_body={"chat_template_kwargs": variables})) as plain:
        job = await worker.answer("ok")
        await plain

    assert job.processor.chat_template_kwargs == variables


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"metadata": {f"k{i}": "v" for i in range(17)}}, "metadata"),
        ({"metadata": {"k" * 65: "v"}}, "metadata"),
        ({"metadata": {"k": "v" * 513}}, "metadata.k"),
        ({"metadata": {"k": 1}}, "metadata.k"),
        ({"store": True}, "store"),
        ({"service_tier": "flex"}, "service_tier"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"moderation": {"model": "m"}}, "moderation"),
        ({"prompt_cache_retention": "24h"}, "prompt_cache_retention"),
        ({"prompt_cache_options": {"mode": "explicit"}}, "prompt_cache_options"),
        ({"reasoning_effort": "low"}, "reasoning_effort"),
        ({"verbosity": "low"}, "verbosity"),
        ({"chat_template_kwargs": {"a": [1]}}, "chat_template_kwargs.a"),
        ({"chat_template_kwargs": {"a b": 1}}, "chat_template_kwargs"),
        ({"chat_template_kwargs": {"a": "x" * 1025}}, "chat_template_kwargs.a"),
        ({"chat_template_kwargs": {f"k{i}": 1 for i in range(17)}}, "chat_template_kwargs"),
        ({"include_stop_str_in_output": True}, "include_stop_str_in_output"),
    ],
)
async def test_field_beyond_what_is_honoured_is_refused_by_name(client, fields, param):
    with pytest.raises(BadRequestError) as refusal:
        await ask(client, extra_body=fields)

    assert refusal.value.param.startswith(param)


async def test_fields_that_ask_for_nothing_are_accepted(client, worker):
    asked = {
        "metadata": {"chat": "7"},
        "store": False,
        "service_tier": "auto",
        "modalities": ["text"],
        "prompt_cache_retention": "in_memory",
        "prompt_cache_options": {"mode": "implicit"},
        "verbosity": "medium",
        "user": "u",
        "safety_identifier": "s",
        "prompt_cache_key": "p",
        "skip_special_tokens": True,
        "use_beam_search": False,
    }
    async with asking(ask(client, extra_body=asked)) as plain:
        await worker.answer("ok")
        assert (await plain).choices[0].message.content == "ok"
