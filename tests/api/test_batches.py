"""Batches by the official client, in front of a worker that a test drives line by line."""

import asyncio
import hashlib
import json
import signal

import pytest
from openai import BadRequestError
from redis.asyncio import Redis

from baton.embedded import EmbeddedRedis
from shared import keys
from shared.errors import ErrorCode
from tests.api.conftest import MODEL, GatewayProcess, asking, connect, served, until

ENDPOINT = "/v1/chat/completions"
REASON = "baton:admission_rejections_total{"
HASTY = {"request_timeout_s": 0.5, "batch_window_s": 5}


def line(name: str, **fields) -> str:
    return json.dumps({"custom_id": name, "method": "POST", "url": ENDPOINT, "body": body(name)} | fields)


def body(words: str, **fields) -> dict:
    return {"model": MODEL, "messages": [{"role": "user", "content": words}]} | fields


async def start(client, *lines: str, **more):
    file = await client.files.create(file=("in.jsonl", "\n".join(lines).encode()), purpose="batch")
    given = {"input_file_id": file.id, "endpoint": ENDPOINT, "completion_window": "24h"} | more
    return await client.batches.create(**given)


async def ended(client, batch):
    async def has_ended() -> bool:
        nonlocal batch
        batch = await client.batches.retrieve(batch.id)
        return batch.status in {"completed", "failed", "expired", "cancelled"}

    await until(has_ended, timeout_s=60)
    return batch


async def is_asking(client, batch) -> bool:
    return (await client.batches.retrieve(batch.id)).status == "in_progress"


async def lines_of(client, file_id: str | None) -> dict[str, dict]:
    if file_id is None:
        return {}
    lines = [json.loads(line) for line in (await client.files.content(file_id)).text.splitlines()]
    assert len({line["id"] for line in lines}) == len({line["custom_id"] for line in lines}) == len(lines)
    return {line["custom_id"]: line for line in lines}


def text_of(line: dict) -> str:
    return line["response"]["body"]["choices"][0]["message"]["content"]


def words_of(job) -> str:
    return job.messages[-1].parts[0].text


@pytest.fixture(scope="module")
def server():
    """A Redis of their own: any gateway takes any batch, and other tests' gateways are set up in other ways."""
    with EmbeddedRedis() as own:
        yield own


@pytest.fixture(scope="module")
def gateway(server):
    alone = GatewayProcess(server.url)
    yield alone
    alone.stop()


@pytest.fixture(scope="module")
async def broker(server):
    async with Redis.from_url(server.url) as redis:
        yield redis


@pytest.fixture
def own_gateway(server, gateway):
    """Start gateways that the test may end, and that take its batch: until it says otherwise, `gateway` sleeps."""
    started = []

    def start_one(**options) -> GatewayProcess:
        gateway.process.send_signal(signal.SIGSTOP)
        started.append(GatewayProcess(server.url, **options))
        return started[-1]

    yield start_one
    for own in started:
        own.stop()
    gateway.process.send_signal(signal.SIGCONT)


@pytest.fixture(autouse=True)
async def no_batch_from_before(broker):
    yield
    await broker.delete(keys.OPEN_BATCHES)


@pytest.mark.parametrize(
    ("lines", "code", "number", "param"),
    [
        (['{"custom_id": "a"'], "invalid_json_line", 1, None),
        ([line("a"), "", "[]"], "invalid_line", 3, None),
        (["{}"], "missing_required_parameter", 1, "custom_id"),
        ([line("a", body={"messages": []})], "invalid_line", 1, "body"),
        ([line("a", method="GET")], "invalid_line", 1, "method"),
        ([line("a", url="/v1/embeddings")], "invalid_url", 1, "url"),
        ([line("a"), line("b"), line("a")], "duplicate_custom_id", 3, "custom_id"),
        ([line("a"), line("b", body=body("b", model="other"))], "mismatched_model", 2, "body.model"),
        ([line("a", colour="red")], "invalid_line", 1, "colour"),
        (["\n \n"], "empty_file", None, None),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_file_with_a_line_that_is_no_request_fails_the_batch(client, broker, lines, code, number, param):
    batch = await ended(client, await start(client, *lines))

    assert batch.status == "failed"
    assert batch.failed_at >= batch.created_at
    assert [(e.code, e.line, e.param) for e in batch.errors.data] == [(code, number, param)]
    assert batch.output_file_id is batch.error_file_id is None
    assert not await broker.exists(keys.queue(MODEL))


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"endpoint": "/v1/embeddings"}, "endpoint"),
        ({"completion_window": "1h"}, "completion_window"),
        ({"metadata": {str(number): "" for number in range(17)}}, "metadata"),
        ({"output_expires_after": {"anchor": "created_at", "seconds": 1}}, "output_expires_after.seconds"),
        ({"extra_body": {"colour": "red"}}, "colour"),
    ],
)
async def test_batch_that_cannot_be_is_refused_by_name(client, more, param):
    with pytest.raises(BadRequestError) as refusal:
        await start(client, line("a"), **more)

    assert refusal.value.param == param


async def test_list_of_batches_is_divided_into_pages(client, broker):
    await broker.delete(keys.batches_of(""))
    made = [(await start(client, "[]")).id for _ in range(3)]

    newest_first = [batch.id async for batch in client.batches.list(limit=2)]
    page = await client.batches.list(limit=2)

    assert newest_first == made[::-1]
    assert page.has_more
    with pytest.raises(BadRequestError, match="after"):
        await client.batches.list(after="batch_unknown")


async def test_answers_stand_in_the_order_of_the_lines_and_refusals_in_a_file_of_their_own(client, worker):
    batch = await start(
        client,
        line("first"),
        line("streamed", body=body("a", stream=True)),
        line("urgent", body=body("a", priority=-5)),
        line("hot", body=body("a", temperature=9)),
        line("last"),
        metadata={"for": "tests"},
    )
    earlier, later = await worker.take(), await worker.take()
    for job in (later, earlier):
        await worker.say(job, f"to {words_of(job)} \u2028")
        await worker.finish(job)
    batch = await ended(client, batch)
    answers, refusals = await lines_of(client, batch.output_file_id), await lines_of(client, batch.error_file_id)

    assert (batch.status, batch.model, batch.metadata) == ("completed", MODEL, {"for": "tests"})
    assert batch.created_at <= batch.in_progress_at <= batch.finalizing_at <= batch.completed_at
    assert batch.request_counts.model_dump() == {"total": 5, "completed": 2, "failed": 3}
    assert (batch.usage.input_tokens, batch.usage.output_tokens, batch.usage.total_tokens) == (14, 6, 20)
    assert [text_of(answer) for answer in answers.values()] == ["to first \u2028", "to last \u2028"]
    assert all(answer["response"]["status_code"] == 200 for answer in answers.values())
    told = {name: line["response"]["body"]["error"]["param"] for name, line in refusals.items()}
    assert told == {"streamed": "stream", "urgent": "priority", "hot": "temperature"}
    assert {line["response"]["status_code"] for line in refusals.values()} == {400}
    files = [file async for file in client.files.list(purpose="batch_output")]
    assert {batch.output_file_id, batch.error_file_id} <= {file.id for file in files}


async def test_failed_job_is_told_as_http_would_tell_it(client, worker):
    batch = await start(client, line("a"))
    await worker.fail(await worker.take(), ErrorCode.CONTEXT_LENGTH_EXCEEDED, "too long", "messages")
    batch = await ended(client, batch)
    (refusal,) = (await lines_of(client, batch.error_file_id)).values()

    assert batch.request_counts.failed == 1
    assert refusal["response"]["status_code"] == 400
    assert refusal["response"]["body"]["error"]["code"] == "context_length_exceeded"


async def test_every_other_request_goes_before_a_batch_which_leaves_the_queue_room(client, worker, broker):
    batch = await start(client, *(line(f"line {n}") for n in range(5)))
    await until(lambda: broker.zcard(keys.queue(MODEL)))
    (head,) = await broker.zrange(keys.queue(MODEL), 0, 0)

    async def is_overtaken() -> bool:
        return await broker.zrange(keys.queue(MODEL), 0, 0) != [head]

    waiting = client.chat.completions.create(**body("now"), extra_body={"priority": 1000})
    async with asking(waiting) as answer:
        await until(is_overtaken)
        first = await worker.answer("yes")
        await answer
        for _ in range(5):
            assert await broker.zcard(keys.queue(MODEL)) <= 2  # of five: the stand-in has one row
            await worker.answer("at last")

    assert words_of(first) == "now"
    assert (await ended(client, batch)).request_counts.completed == 5


async def test_batch_waits_for_a_worker_instead_of_being_refused(client, worker):
    await worker.beat(lives_s=-1)
    await asyncio.sleep(0.6)  # until the gateway has looked again
    batch = await start(client, line("a"))

    await until(lambda: is_asking(client, batch))
    await worker.beat()
    await worker.answer("here")

    assert (await ended(client, batch)).request_counts.completed == 1


async def test_batch_keeps_to_the_limits_of_its_key_and_is_not_refused_by_them(own_gateway, tmp_path, worker, broker):
    sha256 = hashlib.sha256(b"key-one").hexdigest()
    (tmp_path / "keys.yaml").write_text(json.dumps([{"name": "one", "sha256": sha256, "max_concurrent": 1}]))
    gateway = own_gateway(api_keys_file=tmp_path / "keys.yaml")
    async with connect(gateway, "key-one") as client:
        async with asking(client.chat.completions.create(**body("by hand"))) as answer:
            by_hand = await worker.take()
            batch = await start(client, line("a"), line("b"))
            await until(lambda: is_asking(client, batch))
            await asyncio.sleep(0.5)  # it looks for room twice, and is not refused once
            rejections = (await client.with_options(base_url=gateway.url).get("/metrics", cast_to=str)).partition(
                REASON
            )
            await worker.say(by_hand, "ok")
            await finish(worker, broker, by_hand)
            await answer
        jobs = [by_hand]
        for _ in range(2):
            jobs.append(await worker.take())
            await worker.say(jobs[-1], "ok")
            await finish(worker, broker, jobs[-1])
        batch = await ended(client, batch)

    assert rejections[1] == ""
    assert {job.key_name for job in jobs} == {"one"}
    assert batch.request_counts.completed == 2


async def test_cancelled_batch_keeps_what_it_has_and_frees_the_workers(client, worker):
    batch = await start(client, *(line(f"line {n}") for n in range(9)))
    done = await worker.answer("done")
    async with worker.hearing_cancels() as next_cancel:
        job = await worker.take()
        cancelling = await client.batches.cancel(batch.id)
        assert await next_cancel(timeout_s=10) == job.id
    batch = await ended(client, batch)
    answers, refusals = await lines_of(client, batch.output_file_id), await lines_of(client, batch.error_file_id)

    assert (cancelling.status, batch.status) == ("cancelling", "cancelled")
    assert cancelling.cancelling_at <= batch.cancelled_at
    assert list(answers) == [words_of(done)]
    assert list(refusals) == [f"line {n}" for n in range(9) if f"line {n}" != words_of(done)]
    assert {line["error"]["code"] for line in refusals.values()} == {"batch_cancelled"}
    assert (await client.batches.cancel(batch.id)).status == "cancelled"


async def test_ended_batch_cannot_be_cancelled_and_an_open_one_keeps_its_file(client, worker):
    batch = await start(client, line("a"))
    with pytest.raises(BadRequestError, match="still reads this file"):
        await client.files.delete(batch.input_file_id)
    await worker.answer("ok")
    batch = await ended(client, batch)

    with pytest.raises(BadRequestError, match="completed and can't be cancelled"):
        await client.batches.cancel(batch.id)
    await client.files.delete(batch.input_file_id)
    with pytest.raises(BadRequestError, match="purpose is batch_output"):
        await client.batches.create(input_file_id=batch.output_file_id, endpoint=ENDPOINT, completion_window="24h")


async def test_window_that_ends_leaves_the_answers_so_far(own_gateway, worker):
    gateway = own_gateway(**HASTY)
    async with connect(gateway) as client:
        batch = await start(client, *(line(f"line {n}") for n in range(3)))
        done = await worker.answer("in time")
        batch = await ended(client, batch)
        answers, refusals = await lines_of(client, batch.output_file_id), await lines_of(client, batch.error_file_id)

    assert batch.status == "expired"
    assert batch.created_at + 5 == batch.expires_at <= batch.expired_at
    assert list(answers) == [words_of(done)]
    assert len(refusals) == 2
    assert {line["error"]["code"] for line in refusals.values()} == {"batch_expired"}


async def test_line_that_waited_too_long_is_asked_again(own_gateway, worker):
    gateway = own_gateway(**HASTY)
    async with connect(gateway) as client:
        batch = await start(client, line("a"))
        first = await worker.take()
        again = await worker.take()
        await worker.say(again, "now")
        await worker.finish(again)
        batch = await ended(client, batch)
        (answer,) = (await lines_of(client, batch.output_file_id)).values()

    assert first.id != again.id
    assert text_of(answer) == "now"


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGKILL, signal.SIGSTOP])
async def test_successor_of_a_gateway_listens_to_the_jobs_that_it_left(
    own_gateway, gateway, client, worker, broker, signum
):
    leaving = own_gateway()
    async with connect(leaving) as first_client:
        batch = await start(first_client, line("a"), line("b"))
        job = await worker.take()
        await worker.say(job, "half ")
    leaving.process.send_signal(signum)
    gateway.process.send_signal(signal.SIGCONT)
    await until(lambda: has_drivers(broker, batch, 2), timeout_s=60)
    await worker.say(job, "an answer")
    await finish(worker, broker, job)
    other = await worker.take()
    await worker.say(other, "another")
    await finish(worker, broker, other)
    batch = await ended(client, batch)
    leaving.process.send_signal(signal.SIGCONT)  # a gateway that wakes up late has nothing to say
    await until(lambda: has_left(leaving, signum), timeout_s=60)
    batch = await client.batches.retrieve(batch.id)
    answers = await lines_of(client, batch.output_file_id)

    told = {words_of(job): "half an answer", words_of(other): "another"}
    assert {name: text_of(answer) for name, answer in answers.items()} == told
    assert list(answers) == ["a", "b"]
    assert (batch.request_counts.completed, batch.usage.output_tokens) == (2, 6)
    assert not await broker.exists(keys.queue(MODEL))


async def has_drivers(broker, batch, number: int) -> bool:
    return int(await broker.hget(keys.batch(batch.id), "attempt")) == number


async def finish(worker, broker, job) -> None:
    """End a job as a worker does: nothing but its log is left."""
    await worker.finish(job)
    await broker.delete(keys.payload(job.id))


async def has_left(leaving: GatewayProcess, signum: signal.Signals) -> bool:
    """Whether a gateway has ended, or, after it has slept only, does other work again."""
    if signum is not signal.SIGSTOP:
        return leaving.process.poll() is not None
    async with connect(leaving) as client:
        return await served(client)
