"""The Responses API in front of a worker that says what a test wants it to, by the official client."""

import json

import pytest
from openai import APIError, BadRequestError
from openai.types.responses import Response

from api.keyring import ANYBODY
from api.mailbox import _joined
from api.responses.archive import ResponseArchive
from api.responses.writer import ResponseWriter
from shared import keys, wire
from shared.errors import ErrorCode
from shared.events import TextDelta
from shared.job import Message, Role, TextPart
from shared.progress import Candidate, TokenLogprob
from tests.api.conftest import MODEL, asking
from tests.api.responding import answered, ask, ask_in_background, end, heard

WORDS = ("早上", "好 \u2028", "", "🌍")
TEXT = "".join(WORDS)


async def test_plain_response_has_openais_shape_and_says_what_was_asked(client, worker):
    fields = {
        "instructions": "Be kind.",
        "metadata": {"a": "b"},
        "max_output_tokens": 9,
        "temperature": 0.5,
        "user": "ann",
        "safety_identifier": "ann-1",
        "prompt_cache_key": "k",
        "truncation": "disabled",
        "parallel_tool_calls": False,
        "extra_body": {"top_k": 3, "seed": 5},
    }
    job, response = await answered(client, worker, *WORDS, **fields)

    Response.model_validate(json.loads(response.model_dump_json()))
    assert response.id == job.id
    assert job.id.startswith("resp_")
    assert (response.status, response.output_text, response.model) == ("completed", TEXT, MODEL)
    assert response.created_at == int(job.created_s)
    assert (response.instructions, response.metadata, response.max_output_tokens) == ("Be kind.", {"a": "b"}, 9)
    assert (response.temperature, response.top_p, response.user, response.store) == (0.5, 0.9, "ann", True)
    assert (response.safety_identifier, response.prompt_cache_key, response.parallel_tool_calls) == (
        "ann-1",
        "k",
        False,
    )
    assert (response.usage.input_tokens, response.usage.output_tokens, response.usage.total_tokens) == (7, 3, 10)
    assert (job.sampling.temperature, job.sampling.top_k, job.sampling.seed) == (0.5, 3, 5)
    assert job.sampling.max_tokens == 9
    assert job.messages == (
        Message(Role.SYSTEM, (TextPart("Be kind."),)),
        Message(Role.USER, (TextPart("你好"),)),
    )


async def test_stream_has_openais_events_and_ends_in_the_plain_response(client, worker):
    async with asking(ask(client, stream=True)) as answer:
        job = await worker.take()
        await worker.say(job, *WORDS)
        await end(worker, job)
        events = await heard(await answer)

    plain = await client.responses.retrieve(job.id)
    assert [event.type.removeprefix("response.") for event in events] == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        *["output_text.delta"] * 3,
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    assert [event.sequence_number for event in events] == [0, 1, 2, 3, 4, 5, 7, 8, 9, 10, 11]
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == TEXT
    assert (events[0].response.status, events[0].response.output) == ("in_progress", [])
    assert events[-1].response == plain
    assert plain.output_text == TEXT


async def test_clients_own_stream_accumulates(client, worker):
    async def accumulate():
        async with client.responses.stream(model=MODEL, input="hi") as stream:
            return await stream.get_final_response()

    async with asking(accumulate()) as answer:
        job = await worker.take()
        await worker.say(job, *WORDS)
        await end(worker, job)
        response = await answer

    assert response.output_text == TEXT


@pytest.mark.parametrize("background", [False, True])
async def test_any_gateway_goes_on_after_any_event(client, other, worker, background):
    async with asking(ask(client, stream=True, background=background)) as answer:
        job = await worker.take()
        await worker.say(job, "a", "b")
        await worker.say(job, "c")
        await end(worker, job)
        events = await heard(await answer)

    numbers = [event.sequence_number for event in events]
    assert numbers == list(range(len(events)))
    for number in numbers:
        rest = await heard(await other.responses.retrieve(job.id, stream=True, starting_after=number))
        assert rest == events[number + 1 :]
    assert await heard(await other.responses.retrieve(job.id, stream=True)) == events


async def test_joined_deltas_lose_nothing_behind_any_number(worker, client, broker):
    """A slow reader's deltas bear the number of the last one of them."""
    response = await ask_in_background(client)
    job = await worker.take()
    await worker.say(job, *"abcdef")
    await end(worker, job)
    kept = await ResponseArchive(broker, 10, 10, 10).find(response.id, ANYBODY)
    assert kept is not None
    log = [wire.decode_event(fields[b"e"]) for _, fields in await broker.xrange(keys.log(job.id))]
    joined = list(_joined(log))

    whole = sent(ResponseWriter(kept).frames(log))
    merged = sent(ResponseWriter(kept).frames(joined))
    assert len(merged) < len(whole)
    assert text_of(merged) == text_of(whole) == "abcdef"
    for event in merged:
        after = sent(ResponseWriter(kept, event["sequence_number"]).frames(log))
        before = [e for e in merged if e["sequence_number"] <= event["sequence_number"]]
        assert text_of(before) + text_of(after) == "abcdef"


def sent(frames: bytes) -> list[dict]:
    return [json.loads(frame.partition(b"\ndata: ")[2]) for frame in frames.split(b"\n\n") if frame]


def text_of(events: list[dict]) -> str:
    return "".join(event.get("delta", "") for event in events)


async def test_response_is_followed_while_it_is_written(client, other, worker):
    response = await ask_in_background(client)
    job = await worker.take()
    await worker.say(job, "a")

    async with await other.responses.retrieve(response.id, stream=True, starting_after=5) as stream:
        await worker.say(job, "b")
        delta = await anext(stream)
        await end(worker, job)
        last = [event async for event in stream][-1]

    assert (delta.delta, last.response.output_text) == ("b", "ab")


async def test_logprobs_are_told_where_they_are_asked_for(client, worker):
    chosen = Candidate(1, -0.5, b"a")
    token = TokenLogprob(chosen, (chosen, Candidate(2, -1.5, b"\xf0\x9f")))
    async with asking(ask(client, stream=True, top_logprobs=2, include=["message.output_text.logprobs"])) as answer:
        job = await worker.take()
        await worker.say(job)
        await worker.publish(job, TextDelta(**worker.named(job), text="a", token_ids=(1,), logprobs=(token,)))
        await end(worker, job)
        events = await heard(await answer)

    assert job.sampling.num_logprobs == 2
    (said,) = events[-1].response.output[0].content[0].logprobs
    assert (said.token, said.logprob, said.bytes) == ("a", -0.5, [97])
    assert [top.token for top in said.top_logprobs] == ["a", "\ufffd"]
    assert [event.logprobs[0].logprob for event in events if event.type == "response.output_text.delta"] == [-0.5]


async def test_failure_before_the_first_token_decides_the_status_line(client, worker):
    talk = [{"role": "user", "content": "?"}]
    async with asking(ask(client, stream=True, instructions="x", input=talk)) as answer:
        job = await worker.take()
        place, said = (
            "messages[1].content[0].image_url",
            "max_tokens is 9 and messages[1].content[0].image_url is large",
        )
        await worker.fail(job, ErrorCode.CONTEXT_LENGTH_EXCEEDED, said, place)
        with pytest.raises(BadRequestError) as refusal:
            await answer

    assert refusal.value.param == "input[0].content[0].image_url"
    assert "max_output_tokens is 9 and input[0].content[0].image_url is large" in refusal.value.message


@pytest.mark.parametrize("stream", [False, True])
async def test_later_failure_is_told_in_the_response(client, other, worker, stream):
    async with asking(ask(client, stream=stream)) as answer:
        job = await worker.take()
        await worker.say(job, "a")
        await worker.fail(job, ErrorCode.WORKER_LOST, "two workers died")
        if stream:
            last = (await heard(await answer))[-1]
            assert (last.type, last.response.error.code) == ("response.failed", "server_error")
        else:
            with pytest.raises(APIError):
                await answer

    kept = await other.responses.retrieve(job.id)
    assert (kept.status, kept.error.message, kept.output_text) == ("failed", "two workers died", "a")
