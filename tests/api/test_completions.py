"""Raw text and its continuations, as the official client asks for them."""

import asyncio
import json

import httpx2
import pytest
from openai import APIStatusError, BadRequestError

from shared import keys
from shared.errors import ErrorCode
from shared.events import FinishReason, TextDelta
from shared.progress import Candidate, TokenLogprob
from tests.api.conftest import MODEL, asking, until


def complete(client, prompt="Once", **fields):
    return client.completions.create(**{"model": MODEL, "prompt": prompt, **fields})


async def take_all(worker, number):
    jobs = [await worker.take() for _ in range(number)]
    return sorted(jobs, key=lambda job: job.id)


async def say_and_finish(worker, job, *words, reason=FinishReason.STOP):
    await worker.say(job, *words)
    await worker.finish(job, reason)


async def read(stream):
    return [chunk async for chunk in await stream]


def text_of(chunks, index=0):
    return "".join(choice.text for chunk in chunks for choice in chunk.choices if choice.index == index)


async def test_prompt_reaches_the_worker_as_it_stands(client, worker):
    async with asking(complete(client, "<|im_end|> Once", seed=3, stop="x", top_p=0.5)) as answer:
        job = await worker.take()
        await say_and_finish(worker, job, " upon", " a", reason=FinishReason.LENGTH)
        completion = await answer

    assert (job.prompt, job.messages, job.n) == ("<|im_end|> Once", (), 1)
    assert (job.sampling.max_tokens, job.sampling.seed, job.sampling.stop) == (16, 3, ("x",))
    assert (job.sampling.temperature, job.sampling.top_p) == (0.7, 0.5)
    assert (completion.id, completion.object, completion.model) == (job.id, "text_completion", MODEL)
    assert completion.id.startswith("cmpl-")
    assert [choice.model_dump() for choice in completion.choices] == [
        {"index": 0, "text": " upon a", "logprobs": None, "finish_reason": "length"}
    ]
    assert (completion.usage.prompt_tokens, completion.usage.completion_tokens) == (7, 3)


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a", ["a"]),
        (["a", ""], ["a", ""]),
        ([1, 2, 3], [(1, 2, 3)]),
        ([[1, 2], [3]], [(1, 2), (3,)]),
    ],
)
async def test_every_form_of_a_prompt_is_understood(client, worker, prompt, expected):
    async with asking(complete(client, prompt)) as answer:
        jobs = await take_all(worker, len(expected))
        for job in jobs:
            await say_and_finish(worker, job, "ok")
        completion = await answer

    assert [job.prompt for job in jobs] == expected
    assert [choice.index for choice in completion.choices] == [*range(len(expected))]
    assert completion.usage.total_tokens == 10 * len(expected)


async def test_choices_of_several_prompts_are_counted_through(client, worker):
    async with asking(complete(client, ["a", "b"], n=2, echo=True, stream=True)) as streaming:
        reading = asyncio.ensure_future(read(streaming))
        jobs = await take_all(worker, 2)
        for job in reversed(jobs):
            await worker.say(job, f"<{job.prompt}0>")
            await worker.say(job, f"<{job.prompt}1>", index=1)
            await worker.finish_choice(job, 1, FinishReason.LENGTH)
            await worker.finish(job)
        chunks = await reading

    assert [text_of(chunks, index) for index in range(4)] == ["a<a0>", "a<a1>", "b<b0>", "b<b1>"]
    ends = {c.index: c.finish_reason for chunk in chunks for c in chunk.choices if c.finish_reason}
    assert ends == {0: "stop", 1: "length", 2: "stop", 3: "length"}
    assert {chunk.id for chunk in chunks} == {jobs[0].id.removesuffix("-0")}


async def test_prompts_draw_differently_unless_there_is_a_seed(client, worker):
    seeds = {}
    for seed in (None, 5):
        async with asking(complete(client, ["a", "a"], **({} if seed is None else {"seed": seed}))) as answer:
            jobs = await take_all(worker, 2)
            for job in jobs:
                await say_and_finish(worker, job, "ok")
            await answer
        seeds[seed] = {job.sampling.seed for job in jobs}

    assert len(seeds[None]) == 2
    assert seeds[5] == {5}


def scored(token: bytes, *others: bytes) -> TokenLogprob:
    top = tuple(Candidate(2 + i, -1.5, other) for i, other in enumerate(others))
    return TokenLogprob(Candidate(1, -0.5, token), top)


async def test_logprobs_have_the_old_shape_streamed_and_plain(client, worker):
    halves = scored(b"\xe6\x97"), scored(b"\xa9"), scored(b"b", b"c")
    expected = {
        "tokens": ["a", "bytes:\\xe6\\x97", "bytes:\\xa9", "b"],
        "token_logprobs": [-0.5] * 4,
        "top_logprobs": [
            {"x": -1.5, "a": -0.5},
            {"bytes:\\xe6\\x97": -0.5},
            {"bytes:\\xa9": -0.5},
            {"c": -1.5, "b": -0.5},
        ],
        "text_offset": [0, 1, 1, 2],
    }

    async def answer_one():
        job = await worker.take()
        await worker.say(job, "a", logprobs=(scored(b"a", b"x"),))
        delta = TextDelta(**worker.named(job), text="早b", token_ids=(1, 1, 1), logprobs=halves)
        await worker.publish(job, delta)
        await worker.finish(job)
        return job

    async with asking(complete(client, logprobs=1)) as answer:
        job = await answer_one()
        plain = (await answer).choices[0].logprobs.model_dump()
    async with asking(complete(client, logprobs=1, stream=True)) as streaming:
        reading = asyncio.ensure_future(read(streaming))
        await answer_one()
        pieces = [c.logprobs.model_dump() for chunk in await reading for c in chunk.choices if c.logprobs]

    assert job.sampling.num_logprobs == 1
    assert plain == expected
    assert {name: [value for piece in pieces for value in piece[name]] for name in expected} == expected


async def test_stream_ends_in_the_usage_and_done(client, gateway, worker):
    body = {"model": MODEL, "prompt": ["a", "b"], "stream": True, "stream_options": {"include_usage": True}}
    async with (
        httpx2.AsyncClient(trust_env=False) as http,
        asking(http.post(f"{gateway.url}/v1/completions", json=body)) as answer,
    ):
        for job in await take_all(worker, 2):
            await say_and_finish(worker, job, "早\u2028")
        lines = (await answer).text.splitlines()

    frames = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
    assert frames[-1] == "[DONE]"
    chunks = [json.loads(frame) for frame in frames[:-1]]
    assert [chunk["usage"] for chunk in chunks[:-1]] == [None] * 4
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["total_tokens"] == 20
    assert chunks[0]["choices"][0]["text"] == "早\u2028"


async def test_client_that_leaves_cancels_every_prompt(client, worker, broker):
    async with worker.hearing_cancels() as next_cancel:
        async with asking(complete(client, ["a", "b", "c"], stream=True)) as streaming:
            jobs = await take_all(worker, 3)
            await worker.say(jobs[1], "x")
            stream = await streaming
            await stream.close()
        cancelled = {await next_cancel() for _ in jobs}

    assert cancelled == {job.id for job in jobs}


async def test_prompt_that_fails_ends_all_and_cancels_the_others(client, worker):
    async with worker.hearing_cancels() as next_cancel, asking(complete(client, ["a", "b"])) as answer:
        first, second = await take_all(worker, 2)
        await worker.fail(second, ErrorCode.CONTEXT_LENGTH_EXCEEDED, "too long", "prompt")
        with pytest.raises(BadRequestError) as refusal:
            await answer
        cancelled = await next_cancel()

    assert (refusal.value.code, refusal.value.param) == ("context_length_exceeded", "prompt")
    assert cancelled == first.id


async def test_prompts_beyond_the_queues_room_are_refused_together(gateways, broker, worker):
    from tests.api.conftest import connect

    async with connect(gateways(max_queue_len=2)) as client:
        with pytest.raises(APIStatusError) as refusal:
            await complete(client, ["a", "b", "c"])

    assert refusal.value.status_code == 429
    await until(lambda: is_empty(broker))


async def is_empty(broker):
    return not await broker.zcard(keys.queue(MODEL))


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": []}, "prompt"),
        ({"prompt": [[]]}, "prompt"),
        ({"prompt": [1, "a"]}, "prompt"),
        ({"prompt": [True]}, "prompt"),
        ({"prompt": [-1]}, "prompt"),
        ({"prompt": {"a": 1}}, "prompt"),
        ({"prompt": None}, "prompt"),
        ({"prompt": ["a"] * 65}, "prompt"),
        ({"suffix": "end"}, "suffix"),
        ({"best_of": 3}, "best_of"),
        ({"images": ["http://x/y.png"]}, "images"),
        ({"echo": True, "logprobs": 1}, "echo"),
        ({"logprobs": 21}, "logprobs"),
        ({"logprobs": True}, "logprobs"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 5000}, "max_tokens"),
        ({"n": 17}, "n"),
        ({"stream_options": {}}, "stream_options"),
        ({"messages": []}, "messages"),
        ({"timeout": 1e9}, "timeout"),
    ],
)
async def test_wrong_field_is_refused_by_name(client, fields, param):
    with pytest.raises(BadRequestError) as refusal:
        await complete(client, extra_body=fields)

    assert refusal.value.param == param


async def test_best_of_all_is_all(client, worker):
    async with asking(complete(client, n=1, best_of=1, suffix="", echo=False)) as answer:
        await worker.answer("ok")
        assert (await answer).choices[0].text == "ok"
