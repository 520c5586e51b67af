"""What can't be honoured is refused in the words of the request."""

import base64

import httpx2
import pytest
from openai import BadRequestError, NotFoundError

from tests.api.responding import answered, ask

PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
PIXEL_URL = f"data:image/png;base64,{base64.b64encode(PIXEL).decode()}"


async def test_error_names_the_place_in_the_input(client, worker):
    broken = {"type": "input_image", "image_url": "data:image/png;base64,!"}

    with pytest.raises(BadRequestError) as refusal:
        await ask(client, instructions="x", input=[{"role": "user", "content": [broken]}])

    assert refusal.value.param == "input[0].content[0].image_url"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": []}, "input"),
        ({"input": ""}, "input"),
        ({"input": [{"role": "system", "content": "x"}]}, "input"),
        ({"input": [{"role": "assistant", "content": "x"}]}, "input[0].role"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0]"),
        ({"input": [{"type": "reasoning", "id": "x", "summary": []}]}, "input[0]"),
        ({"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "x"}]}]}, "input[0].content[0]"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "x", "image_url": "x"}]}]},
            "input[0].content[0].file_id",
        ),
        (
            {"input": [{"role": "user", "content": [{"type": "output_text", "text": "x"}]}]},
            "input[0].content[0]",
        ),
        (
            {"input": [{"role": "assistant", "content": [{"type": "input_image", "image_url": PIXEL_URL}]}]},
            "input[0].content[0]",
        ),
        ({"background": True, "store": False}, "store"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"truncation": "auto"}, "truncation"),
        ({"reasoning": {"effort": "high"}}, "reasoning"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"prompt": {"id": "x"}}, "prompt"),
        ({"service_tier": "flex"}, "service_tier"),
        ({"include": ["file_search_call.results"]}, "include[0]"),
        ({"text": {"verbosity": "high"}}, "text.verbosity"),
        ({"metadata": {str(n): "x" for n in range(17)}}, "metadata"),
        ({"metadata": {"x": "y" * 513}}, "metadata.x"),
        ({"previous_response_id": "resp_0"}, "previous_response_id"),
        ({"extra_body": {"stream_options": {}}}, "stream_options"),
        (
            {"extra_body": {"stream": True, "stream_options": {"include_obfuscation": True}}},
            "stream_options.include_obfuscation",
        ),
        ({"extra_body": {"n": 2}}, "n"),
        ({"max_output_tokens": 10**6}, "max_output_tokens"),
        ({"extra_body": {"timeout": 10**6}}, "timeout"),
    ],
)
async def test_what_cannot_be_honoured_is_refused_by_name(client, worker, fields, param):
    with pytest.raises(BadRequestError) as refusal:
        await ask(client, **fields)

    assert refusal.value.param == param


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("starting_after=1", "starting_after"),
        ("stream=true&starting_after=-1", "starting_after"),
        ("stream=true&include_obfuscation=true", "include_obfuscation"),
        ("include[]=message.output_text.logprobs", "include[]"),
    ],
)
async def test_wrong_query_is_refused_by_name(gateway, client, worker, query, param):
    job, _ = await answered(client, worker, "a")

    refusal = httpx2.get(f"{gateway.url}/v1/responses/{job.id}?{query}")

    assert (refusal.status_code, refusal.json()["error"]["param"]) == (400, param)


async def test_name_that_looks_like_a_place_stays_as_it_is(client):
    with pytest.raises(NotFoundError, match=r"messages\[99\]\.x"):
        await ask(client, model="messages[99].x")
