"""The Responses API in front of a worker that says what a test wants it to, by the official client."""

import base64
import json

import httpx2
import pytest
from openai import APIError, AsyncOpenAI, BadRequestError, NotFoundError
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from api.keyring import ANYBODY
from api.mailbox import _joined
from api.responses.archive import ResponseArchive
from api.responses.writer import ResponseWriter
from shared import keys, wire
from shared.errors import ErrorCode
from shared.events import FinishReason, TextDelta
from shared.job import MediaKind, MediaPart, Message, Role, TextPart
from shared.progress import Candidate, TokenLogprob
from tests.api.conftest import MODEL, asking, connect, until

EVENT = TypeAdapter(ResponseStreamEvent)
WORDS = ("早上", "好 \u2028", "", "🌍")
TEXT = "".join(WORDS)
PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
PIXEL_URL = f"data:image/png;base64,{base64.b64encode(PIXEL).decode()}"


def ask(client: AsyncOpenAI, **fields):
    return client.responses.create(**{"model": MODEL, "input": "你好", **fields})


async def end(worker, job, reason=FinishReason.STOP) -> None:
    """End a job as a real worker's script does."""
    await worker.finish(job, reason)
    await worker.redis.delete(keys.payload(job.id), keys.lease(job.id))


async def answered(client, worker, *words: str, **fields) -> tuple:
    async with asking(ask(client, **fields)) as answer:
        job = await worker.take()
        await worker.say(job, *words)
        await end(worker, job)
        return job, await answer


@pytest.fixture
async def other(gateways, client):
    """The client of another gateway."""
    async with connect(gateways(keep_alive_s=0.2, response_ttl_s=100)) as opened:
        yield opened


async def heard(stream) -> list:
    events = [event async for event in stream]
    for event in events:
        EVENT.validate_python(event.model_dump())
    return events


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


async def ask_in_background(client, **fields):
    response = await ask(client, background=True, **fields)
    assert (response.status, response.background, response.output) == ("queued", True, [])
    return response


async def test_background_response_is_polled_at_any_gateway(client, other, worker):
    response = await ask_in_background(client)
    job = await worker.take()
    assert (await other.responses.retrieve(response.id)).status == "queued"

    await worker.say(job, "a")
    running = await other.responses.retrieve(response.id)
    await worker.say(job, "b")
    await end(worker, job, FinishReason.LENGTH)
    ended = await other.responses.retrieve(response.id)

    assert job.id == response.id
    assert (running.status, running.output_text, running.usage) == ("in_progress", "a", None)
    assert (ended.status, ended.output_text, ended.output[0].status) == ("incomplete", "ab", "incomplete")
    assert ended.incomplete_details.reason == "max_output_tokens"
    Response.model_validate(json.loads(ended.model_dump_json()))


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


async def test_background_job_outlives_its_stream(client, worker):
    async with worker.hearing_cancels() as next_cancel:
        async with asking(ask(client, stream=True, background=True)) as answer:
            job = await worker.take()
            await worker.say(job, "a")
            stream = await answer
            await anext(aiter(stream))
            await stream.close()
        with pytest.raises(AssertionError, match="no cancel"):
            await next_cancel(0.5)
    await end(worker, job)

    assert (await client.responses.retrieve(job.id)).status == "completed"


async def test_background_job_that_redis_forgot_is_begun_again(client, worker, broker):
    response = await ask_in_background(client)
    job = await worker.take()
    await worker.say(job, "a", "b")
    for key in (keys.payload(job.id), keys.lease(job.id), keys.log(job.id), keys.response(job.id)):
        await broker.delete(key)

    await broker.execute_command("CLIENT", "KILL", "TYPE", "PUBSUB")
    again = await worker.take(timeout_s=30)
    worker.seqs.clear()
    await worker.say(again, "a", "b", "c")
    await end(worker, again)

    assert (again.id, again.progress.last_seq) == (job.id, 0)
    assert (await client.responses.retrieve(response.id)).output_text == "abc"


async def test_waiting_response_is_cancelled_at_another_gateway(client, other, worker, broker):
    response = await ask_in_background(client)
    await until(lambda: broker.zcard(keys.queue(MODEL)))

    cancelled = await other.responses.cancel(response.id)
    again = await client.responses.cancel(response.id)

    assert cancelled.status == again.status == "cancelled"
    assert await broker.zcard(keys.queue(MODEL)) == 0
    assert (await client.responses.retrieve(response.id)).status == "cancelled"


async def test_running_response_is_cancelled_and_keeps_what_it_said(client, other, worker):
    response = await ask_in_background(client)
    job = await worker.take()
    await worker.say(job, "a")
    async with worker.hearing_cancels() as next_cancel, asking(other.responses.cancel(response.id)) as answer:
        assert await next_cancel() == job.id
        await end(worker, job, FinishReason.CANCELLED)
        cancelled = await answer

    assert (cancelled.status, cancelled.output_text, cancelled.usage) == ("cancelled", "a", None)
    events = [event async for event in await client.responses.retrieve(job.id, stream=True)]
    assert (events[-1].type, events[-1].code) == ("error", "stream_interrupted")


async def test_ended_response_is_not_cancelled(client, worker):
    job, _ = await answered(client, worker, "a")

    assert (await client.responses.cancel(job.id)).status == "completed"


async def test_foreground_response_is_cancelled_when_its_client_leaves(client, worker):
    async with worker.hearing_cancels() as next_cancel:
        async with asking(ask(client, stream=True)) as answer:
            job = await worker.take()
            await worker.say(job, "a")
            stream = await answer
            await stream.close()
        assert await next_cancel() == job.id


async def test_deleted_response_is_gone(client, other, worker, broker):
    job, _ = await answered(client, worker, "a")

    await other.responses.delete(job.id)

    with pytest.raises(NotFoundError) as refusal:
        await client.responses.retrieve(job.id)
    assert refusal.value.param == "response_id"
    assert not await broker.exists(keys.log(job.id), keys.response(job.id))
    with pytest.raises(NotFoundError):
        await client.responses.delete(job.id)


async def test_running_response_is_cancelled_when_it_is_deleted(client, worker, broker):
    response = await ask_in_background(client)

    await client.responses.delete(response.id)

    assert await broker.zcard(keys.queue(MODEL)) == 0
    with pytest.raises(NotFoundError):
        await client.responses.retrieve(response.id)


async def test_response_that_is_not_stored_cannot_be_read(client, worker, broker):
    job, response = await answered(client, worker, "a", store=False)

    assert not response.store
    assert not await broker.exists(keys.response(job.id))
    with pytest.raises(NotFoundError):
        await client.responses.retrieve(job.id)


async def test_next_response_goes_on_from_the_last_one_with_its_picture(client, other, worker):
    picture = {"type": "input_image", "image_url": PIXEL_URL, "detail": "auto"}
    talk = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [picture, {"type": "input_text", "text": "?"}]},
    ]
    first, _ = await answered(client, worker, "red", input=talk, instructions="Be kind.")
    second, _ = await answered(other, worker, "it is", input="sure?", previous_response_id=first.id)
    third, response = await answered(
        client, worker, "yes", input="really?", previous_response_id=second.id, instructions="Be loud."
    )

    system, seen = first.messages[0], first.messages[1].parts[0]
    assert system == Message(Role.SYSTEM, (TextPart("Be kind.\n\nBe brief."),))
    assert isinstance(seen, MediaPart)
    assert third.messages[0] == Message(Role.SYSTEM, (TextPart("Be loud.\n\nBe brief."),))
    assert [message.role.value for message in third.messages[1:]] == ["user", "assistant", "user", "assistant", "user"]
    again = third.messages[1].parts[0]
    assert (again.kind, again.sha256) == (MediaKind.IMAGE, seen.sha256)
    assert [m.parts[-1].text for m in third.messages[1:]] == ["?", "red", "sure?", "it is", "really?"]
    assert response.previous_response_id == second.id


async def test_earlier_answer_may_be_sent_back_as_it_came(client, worker):
    _, response = await answered(client, worker, "red")
    talk = [{"role": "user", "content": "?"}, *[item.model_dump() for item in response.output]]

    job, _ = await answered(client, worker, "yes", input=[*talk, {"role": "user", "content": "sure?"}])

    assert [m.parts[0].text for m in job.messages] == ["?", "red", "sure?"]


async def test_input_is_listed_without_media(client, worker):
    picture = {"type": "input_image", "image_url": PIXEL_URL}
    talk = [
        {"role": "user", "content": [picture]},
        {"role": "assistant", "content": "a"},
        {"role": "user", "content": "b"},
    ]
    job, _ = await answered(client, worker, "c", input=talk)

    page = await client.responses.input_items.list(job.id, limit=2)
    listed = [item async for item in page]

    assert [item.role for item in listed] == ["user", "assistant", "user"]
    assert [item.content[0].type for item in listed] == ["input_text", "output_text", "input_image"]


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


async def test_response_without_an_answer_is_no_previous_one(client, worker):
    response = await ask_in_background(client)

    with pytest.raises(BadRequestError, match="queued") as refusal:
        await ask(client, previous_response_id=response.id)

    assert refusal.value.param == "previous_response_id"
    await client.responses.cancel(response.id)


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


async def test_chat_does_not_show_a_response(gateway, client, worker):
    job, _ = await answered(client, worker, "a")

    assert httpx2.get(f"{gateway.url}/v1/chat/completions/{job.id}/events").status_code == 404
