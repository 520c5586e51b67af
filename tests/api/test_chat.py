import asyncio
import json
import socket
import time
from contextlib import aclosing, closing

import pytest
from openai import APIStatusError, AsyncOpenAI, RateLimitError

from shared import keys, wire
from shared.errors import ErrorCode
from shared.events import FinishReason, TextDelta
from shared.job import Role, TextPart
from tests.api.conftest import MODEL, asking, until

HELLO = [{"role": "user", "content": "你好, \u0000 wörld 🌍"}]


def ask(client: AsyncOpenAI, **fields):
    return client.chat.completions.create(**{"model": MODEL, "messages": HELLO, **fields})


async def test_plain_answer_is_the_fold_of_the_stream(client, worker):
    async with asking(ask(client)) as answer:
        job = await worker.answer("早上", "好 \u2028", "", "🌍")
        completion = await answer

    assert completion.id == job.id
    assert completion.model == MODEL
    assert completion.object == "chat.completion"
    assert completion.choices[0].message.content == "早上好 \u2028🌍"
    assert completion.choices[0].finish_reason == "stop"
    assert completion.usage.model_dump(exclude_none=True) == {
        "prompt_tokens": 7,
        "completion_tokens": 3,
        "total_tokens": 10,
        "prompt_tokens_details": {"audio_tokens": 0, "cached_tokens": 0, "image_tokens": 0},
        "completion_tokens_details": {
            "accepted_prediction_tokens": 0,
            "audio_tokens": 0,
            "reasoning_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


async def test_job_is_complete(client, worker):
    async with asking(ask(client, temperature=0, max_tokens=5, stop="x", seed=-1)) as answer:
        job = await worker.answer("ok")
        await answer

    assert job.messages[0].role is Role.USER
    assert job.messages[0].parts == (TextPart("你好, \u0000 wörld 🌍"),)
    assert (job.sampling.temperature, job.sampling.top_p, job.sampling.top_k) == (0, 0.9, 40)
    assert (job.sampling.stop, job.sampling.max_tokens, job.sampling.seed) == (("x",), 5, 2**63 - 1)
    assert job.deadline_s == job.created_s + 600


async def test_gateway_listens_before_it_enqueues(broker, client, worker):
    """A worker may answer within the very millisecond the job is queued."""
    async with asking(ask(client)) as answer:
        job = await worker.take()
        ((_, num_listeners),) = await broker.pubsub_numsub(keys.events(job.gateway))
        await worker.say(job, "at once")
        await worker.finish(job)
        await answer

    assert num_listeners == 1


async def test_absent_seed_is_drawn_anew(client, worker):
    seeds = set()
    for _ in range(2):
        async with asking(ask(client)) as answer:
            seeds.add((await worker.answer("ok")).sampling.seed)
            await answer

    assert len(seeds) == 2


async def test_stream_has_one_role_one_finish_and_the_usage_last(client, worker):
    stream_options = {"include_usage": True}
    async with asking(ask(client, stream=True, stream_options=stream_options)) as answer:
        job = await worker.take()
        await worker.say(job, "Ha")
        async with await answer as stream:
            chunks = [await anext(stream), await anext(stream)]
            await worker.say(job, "", "llo")
            await worker.finish(job, FinishReason.LENGTH)
            chunks += [chunk async for chunk in stream]

    assert [c.choices[0].delta.role for c in chunks[:-1]] == ["assistant", None, None, None]
    assert [c.choices[0].delta.content for c in chunks[:-1]] == ["", "Ha", "llo", None]
    assert [c.choices[0].finish_reason for c in chunks[:-1]] == [None, None, None, "length"]
    assert [c.usage for c in chunks[:-1]] == [None] * 4
    assert chunks[-1].choices == []
    assert chunks[-1].usage.total_tokens == 10
    assert {c.id for c in chunks} == {job.id}


async def test_usage_is_not_sent_unasked(client, worker):
    async with asking(ask(client, stream=True)) as answer:
        await worker.answer("x")
        chunks = [chunk async for chunk in await answer]

    assert all(chunk.choices and chunk.usage is None for chunk in chunks)


async def test_failure_before_the_first_token_is_a_status(client, worker):
    for stream in (False, True):
        async with asking(ask(client, stream=stream)) as answer:
            await worker.fail(await worker.take(), ErrorCode.INVALID_MEDIA, "no picture", "images[0]")
            with pytest.raises(APIStatusError) as caught:
                await answer

        assert caught.value.status_code == 400
        assert caught.value.body["code"] == "invalid_media"
        assert caught.value.body["param"] == "images[0]"
        assert caught.value.body["message"] == "no picture"


async def test_failure_after_the_first_token_is_an_error_frame(gateway, client, worker):
    with closing(open_stream(gateway)) as connection:
        job = await worker.take()
        await worker.say(job, "half")
        await worker.fail(job, ErrorCode.WORKER_LOST, "gone")
        raw = await read_all(connection)

    assert raw.startswith(b"HTTP/1.1 200")
    frames = [line for line in raw.decode().splitlines() if line.startswith("data: ")]
    error = json.loads(frames[-1].removeprefix("data: "))["error"]
    assert error == {"message": "gone", "type": "server_error", "param": None, "code": "worker_lost"}
    assert b"[DONE]" not in raw


async def test_frames_are_numbered_and_end_with_done(gateway, client, worker):
    with closing(open_stream(gateway)) as connection:
        await worker.answer("a", "b")
        raw = await read_all(connection)

    lines = [line for line in raw.decode().splitlines() if line.startswith(("id:", "data: [DONE]"))]
    assert lines == ["id: 1", "id: 2", "id: 3", "id: 4", "data: [DONE]"]


async def test_silent_stream_opens_and_is_kept_alive(gateway, client, worker):
    with closing(open_stream(gateway)) as connection:
        job = await worker.take()
        opened = await read_until(connection, b": ping")
        await worker.fail(job, ErrorCode.INTERNAL_ERROR, "secret")
        rest = await read_all(connection)

    assert opened.startswith(b"HTTP/1.1 200")
    assert b'"code":"internal_error"' in rest
    assert b"secret" not in rest


async def test_stream_with_keep_alives_in_its_midst_is_read_by_the_official_client(gateway, client, worker):
    """Another stream's keep-alives tell that this one has had some."""
    async with asking(ask(client, stream=True)) as answer:
        job = await worker.take()
        await worker.say(job, "one")
        async with await answer as stream:
            chunks = [await anext(stream), await anext(stream)]
            with closing(open_stream(gateway)) as clock:
                other = await worker.take()
                for _ in range(3):
                    await read_until(clock, b": ping")
                await worker.finish(other)
            await worker.say(job, " two")
            await worker.finish(job)
            chunks += [chunk async for chunk in stream]

    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "one two"


async def test_gap_is_filled_from_the_log(client, worker):
    async with asking(ask(client)) as answer:
        job = await worker.take()
        await worker.say(job, "one ")
        await worker.publish(job, delta(worker, job, "two "), tells=False)
        await worker.say(job, "three")
        await worker.finish(job)
        completion = await answer

    assert completion.choices[0].message.content == "one two three"


async def test_repeated_events_are_dropped(client, worker):
    async with asking(ask(client)) as answer:
        job = await worker.take()
        await worker.say(job, "one ")
        two = delta(worker, job, "two")
        await worker.publish(job, two)
        await worker.publish(job, two, two, logs=False)
        await worker.finish(job)
        completion = await answer

    assert completion.choices[0].message.content == "one two"


async def test_gap_that_nobody_can_fill_breaks_the_stream(client, worker):
    async with asking(ask(client)) as answer:
        job = await worker.take()
        await worker.say(job, "one ")
        delta(worker, job, "lost")
        await worker.say(job, "three")
        with pytest.raises(APIStatusError) as caught:
            await answer

    assert caught.value.status_code == 502
    assert caught.value.body["code"] == "stream_interrupted"


async def test_stream_survives_the_loss_of_its_channel(broker, client, worker):
    async with asking(ask(client)) as answer:
        job = await worker.take()
        await worker.say(job, "one ")
        await worker.publish(job, delta(worker, job, "unheard"), tells=False)
        await worker.finish(job, tells=False)
        await broker.client_kill_filter(_type="pubsub")
        completion = await answer

    assert completion.choices[0].message.content == "one unheard"


async def test_end_that_nobody_heard_is_found_in_the_log(client, worker):
    async with asking(ask(client)) as answer:
        job = await worker.take()
        await worker.say(job, "one")
        await worker.finish(job, tells=False)
        completion = await answer

    assert completion.choices[0].message.content == "one"


async def test_all_streams_share_one_channel_connection(broker, client, worker):
    async def num_listeners():
        return len(await broker.client_list(_type="pubsub"))

    before = await num_listeners()
    async with asking(asyncio.gather(*(ask(client) for _ in range(8)))) as answers:
        jobs = [await worker.take() for _ in range(8)]
        during = await num_listeners()
        for job in jobs:
            await worker.say(job, job.id)
            await worker.finish(job)
        texts = {answer.id: answer.choices[0].message.content for answer in await answers}

    assert during == before
    assert texts == {job.id: job.id for job in jobs}


async def test_message_of_another_version_is_ignored(broker, client, worker):
    async with asking(ask(client)) as answer:
        job = await worker.take()
        await broker.publish(keys.events(job.gateway), wire.VERSION + b"rubbish")
        await worker.say(job, "still here")
        await worker.finish(job)
        completion = await answer

    assert completion.choices[0].message.content == "still here"


@pytest.mark.parametrize("stream", [False, True])
async def test_leaving_client_cancels_the_running_job(gateway, client, worker, stream):
    async with worker.hearing_cancels() as next_cancel:
        connection = open_stream(gateway, stream=stream)
        job = await worker.take()
        await worker.say(job, "and so ")
        if stream:
            await read_until(connection, b"and so ")
        connection.close()

        assert await next_cancel() == job.id


@pytest.mark.parametrize("stream", [False, True])
async def test_leaving_client_takes_its_job_out_of_the_queue(gateway, broker, client, worker, stream):
    connection = open_stream(gateway, stream=stream)
    await until(lambda: broker.exists(keys.queue(MODEL)))
    job_id = (await broker.zrange(keys.queue(MODEL), 0, -1))[0].decode()
    connection.close()

    async def is_gone():
        return not await broker.exists(keys.queue(MODEL), keys.payload(job_id))

    await until(is_gone)


async def test_cancel_that_no_worker_hears_ends_the_job(gateway, broker, client, worker):
    connection = open_stream(gateway)
    job = await worker.take()
    await broker.zadd(keys.inflight(MODEL), {job.id: 1})
    connection.close()

    async def is_gone():
        return not await broker.exists(keys.inflight(MODEL), keys.payload(job.id), keys.lease(job.id))

    await until(is_gone)


async def test_ended_job_is_not_cancelled(client, worker):
    async with worker.hearing_cancels() as next_cancel, asking(ask(client, stream=True)) as answer:
        await worker.answer("x")
        async with await answer as stream, aclosing(stream):
            assert [chunk async for chunk in stream]
        with pytest.raises(AssertionError, match="no cancel"):
            await next_cancel(0.3)


async def test_deadline_ends_the_wait_and_cancels(gateways, client, worker):
    impatient = gateways(request_timeout_s=0.5)
    async with (
        worker.hearing_cancels() as next_cancel,
        AsyncOpenAI(base_url=f"{impatient.url}/v1", api_key="x", max_retries=0) as other,
    ):
        async with asking(ask(other)) as answer:
            job = await worker.take()
            with pytest.raises(APIStatusError) as caught:
                await answer

        assert caught.value.status_code == 504
        assert caught.value.body["code"] == "deadline_exceeded"
        assert await next_cancel() == job.id


async def test_slow_reader_gets_every_word(gateway, client, worker):
    words = [f"word{i} " for i in range(2000)]
    with closing(open_stream(gateway)) as connection:
        job = await worker.take()
        for i in range(0, len(words), 100):
            await worker.say(job, *words[i : i + 100])
        await worker.finish(job)
        raw = await read_all(connection)

    frames = [json.loads(line[6:]) for line in raw.decode().splitlines() if line.startswith('data: {"id')]
    assert "".join(f["choices"][0]["delta"].get("content", "") for f in frames) == "".join(words)


def delta(worker, job, text: str) -> TextDelta:
    return TextDelta(**worker.named(job), text=text, token_ids=(1,))


def open_stream(gateway, stream: bool = True, **fields: object) -> socket.socket:
    """Ask over a bare socket, so that it can be closed like a client that dies."""
    body = json.dumps({"model": MODEL, "messages": HELLO, "stream": stream} | fields).encode()
    connection = socket.create_connection(("127.0.0.1", gateway.port))
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    connection.sendall(head.encode() + body)
    connection.setblocking(False)
    return connection


async def read_until(connection: socket.socket, mark: bytes) -> bytes:
    raw = b""
    async with asyncio.timeout(10):
        while mark not in raw:
            piece = await asyncio.get_running_loop().sock_recv(connection, 65536)
            assert piece, f"the stream ended with {raw[-200:]!r}"
            raw += piece
    return raw


async def read_all(connection: socket.socket) -> bytes:
    """The response, without chunk headers: each frame is a piece of its own."""
    raw = b""
    async with asyncio.timeout(10):
        while piece := await asyncio.get_running_loop().sock_recv(connection, 65536):
            raw += piece
    return raw


async def queue_has(broker, num_jobs: int) -> bool:
    return await broker.zcard(keys.queue(MODEL)) == num_jobs


async def test_one_request_too_many_is_refused_at_once_and_told_when_to_return(gateways, broker, worker):
    """The worker ends a job every two seconds, and two wait."""
    gateway = gateways(max_queue_len=2)
    await worker.beat(jobs_per_s=0.5)
    async with AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="x", max_retries=0) as client:
        waiting = [asyncio.create_task(ask(client)) for _ in range(2)]
        await until(lambda: queue_has(broker, 2))
        began_s = time.monotonic()
        with pytest.raises(RateLimitError) as refusal:
            await ask(client)
        took_s = time.monotonic() - began_s

        for _ in waiting:
            await worker.answer("ok")
        await asyncio.gather(*waiting)

    assert refusal.value.code == "queue_full"
    assert refusal.value.response.headers["retry-after"] == "4"
    assert took_s < 1
