"""Responses in the background and afterwards: read, gone on from, cancelled and deleted, at any gateway."""

import base64
import json

import httpx2
import pytest
from openai import BadRequestError, NotFoundError
from openai.types.responses import Response

from shared import keys
from shared.events import FinishReason
from shared.job import MediaKind, MediaPart, Message, Role, TextPart
from tests.api.conftest import MODEL, asking, until
from tests.api.responding import answered, ask, ask_in_background, end

PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
PIXEL_URL = f"data:image/png;base64,{base64.b64encode(PIXEL).decode()}"


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


async def test_response_without_an_answer_is_no_previous_one(client, worker):
    response = await ask_in_background(client)

    with pytest.raises(BadRequestError, match="queued") as refusal:
        await ask(client, previous_response_id=response.id)

    assert refusal.value.param == "previous_response_id"
    await client.responses.cancel(response.id)


async def test_chat_does_not_show_a_response(gateway, client, worker):
    job, _ = await answered(client, worker, "a")

    assert httpx2.get(f"{gateway.url}/v1/chat/completions/{job.id}/events").status_code == 404
