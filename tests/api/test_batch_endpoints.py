"""Batches of continuations and of responses: read, let in and answered as the routes do."""

import asyncio
import signal

import pytest

from tests.api.conftest import MODEL, asking, connect, until
from tests.api.test_batches import (
    body,
    ended,
    finish,
    has_drivers,
    line,
    lines_of,
    start,
    words_of,
)
from tests.api.test_batches import broker as broker
from tests.api.test_batches import gateway as gateway
from tests.api.test_batches import no_batch_from_before as no_batch_from_before
from tests.api.test_batches import own_gateway as own_gateway
from tests.api.test_batches import server as server
from tests.api.test_keys import keys_file as keys_file

COMPLETIONS, RESPONSES = "/v1/completions", "/v1/responses"


def asks(path: str, name: str, **fields) -> str:
    return line(name, url=path, body={"model": MODEL, **fields})


async def answer_next(worker, broker):
    job = await worker.take()
    said = job.prompt if job.prompt is not None else words_of(job)
    await worker.say(job, f"<{said}>")
    await finish(worker, broker, job)
    return job


async def answers_of(client, batch) -> dict[str, dict]:
    """The bodies of a batch's answers by custom id, without what differs each time."""
    told = {name: line["response"]["body"] for name, line in (await lines_of(client, batch.output_file_id)).items()}
    return {name: without_id(body) for name, body in told.items()}


def without_id(body: dict) -> dict:
    return {name: value for name, value in body.items() if name not in {"id", "created", "created_at", "output"}}


async def test_lines_are_continued_as_the_route_continues_prompts(client, worker, broker):
    fields = {"prompt": ["b", "c"], "echo": True, "seed": 4}
    batch = await start(
        client,
        asks(COMPLETIONS, "one", prompt="a"),
        asks(COMPLETIONS, "two", **fields),
        asks(COMPLETIONS, "none", prompt=[]),
        asks(COMPLETIONS, "streamed", prompt="a", stream=True),
        endpoint=COMPLETIONS,
    )
    jobs = [await answer_next(worker, broker) for _ in range(3)]
    batch = await ended(client, batch)
    async with asking(client.completions.with_raw_response.create(model=MODEL, **fields)) as plain:
        for _ in range(2):
            await answer_next(worker, broker)
        expected = (await plain).http_response.json()
    answers, refusals = await answers_of(client, batch), await lines_of(client, batch.error_file_id)

    assert {job.priority for job in jobs} == {1001}
    assert batch.request_counts.model_dump() == {"total": 4, "completed": 2, "failed": 2}
    assert batch.usage.total_tokens == 30
    assert answers["two"] == without_id(expected)
    assert [choice["text"] for choice in answers["two"]["choices"]] == ["b<b>", "c<c>"]
    assert answers["one"]["choices"][0]["text"] == "<a>"
    told = {name: line["response"]["body"]["error"]["param"] for name, line in refusals.items()}
    assert told == {"none": "prompt", "streamed": "stream"}


async def test_lines_are_answered_as_the_route_responds_and_are_stored_as_there(client, worker, broker):
    batch = await start(
        client,
        asks(RESPONSES, "kept", input="a", metadata={"for": "tests"}),
        asks(RESPONSES, "unkept", input="a", store=False),
        asks(RESPONSES, "later", input="a", background=True),
        asks(RESPONSES, "odd", input=[{"role": "user", "content": [{"type": "input_colour"}]}]),
        endpoint=RESPONSES,
    )
    for _ in range(2):
        await answer_next(worker, broker)
    batch = await ended(client, batch)
    answers, refusals = await lines_of(client, batch.output_file_id), await lines_of(client, batch.error_file_id)
    told = answers["kept"]["response"]["body"]
    raw = client.responses.with_raw_response
    async with asking(raw.create(model=MODEL, input="a", metadata={"for": "tests"})) as plain:
        await answer_next(worker, broker)
        expected = (await plain).http_response.json()

    assert batch.request_counts.model_dump() == {"total": 4, "completed": 2, "failed": 2}
    assert without_id(told) == without_id(expected)
    assert told["output"][0]["content"][0]["text"] == "<a>"
    assert (await client.responses.retrieve(told["id"])).output_text == "<a>"
    with pytest.raises(Exception, match="There is no response"):
        await client.responses.retrieve(answers["unkept"]["response"]["body"]["id"])
    told = {name: line["response"]["body"]["error"]["param"] for name, line in refusals.items()}
    assert told == {"later": "background", "odd": "input[0].content[0]"}


async def test_lines_of_a_dead_gateway_are_gone_on_with_and_cancelled(own_gateway, gateway, client, worker, broker):
    leaving = own_gateway()
    async with connect(leaving) as first_client:
        lines = asks(COMPLETIONS, "pair", prompt=["a", "b"]), asks(COMPLETIONS, "late", prompt="c")
        continued = await start(first_client, *lines, endpoint=COMPLETIONS)
        responded = await start(first_client, asks(RESPONSES, "line", input="d"), endpoint=RESPONSES)
        jobs = await begin_all(worker, broker)
    leaving.process.kill()
    gateway.process.send_signal(signal.SIGCONT)
    for batch in (continued, responded):
        await until(lambda batch=batch: has_drivers(broker, batch, 2), timeout_s=60)
    for said in "bd":
        await worker.say(jobs[said], "an answer")
        await finish(worker, broker, jobs[said])
    responded = await ended(client, responded)
    await until(lambda: has_answer(client, continued))
    async with worker.hearing_cancels() as next_cancel:
        await client.batches.cancel(continued.id)
        assert await next_cancel(timeout_s=30) == jobs["c"].id
    continued = await ended(client, continued)
    (pair,) = (await lines_of(client, continued.output_file_id)).values()
    (response,) = (await lines_of(client, responded.output_file_id)).values()

    assert [choice["text"] for choice in pair["response"]["body"]["choices"]] == ["<a>", "half an answer"]
    assert jobs["b"].id == pair["response"]["body"]["id"] + "-1"
    assert response["response"]["body"]["id"] == jobs["d"].id
    assert "half an answer" in str(response["response"]["body"]["output"])
    assert (responded.status, continued.status) == ("completed", "cancelled")
    assert (responded.usage.output_tokens, continued.usage.output_tokens) == (3, 6)


async def begin_all(worker, broker) -> dict:
    """Begin four jobs, and bring the first of two prompts to its end."""
    jobs = {}
    while len(jobs) < 4:
        job = await worker.take()
        said = job.prompt or words_of(job)
        jobs[said] = job
        await worker.say(job, "<a>" if said == "a" else "half ")
        if said == "a":
            await finish(worker, broker, job)
    return jobs


async def has_answer(client, batch) -> bool:
    return (await client.batches.retrieve(batch.id)).request_counts.completed == 1


@pytest.mark.parametrize(("path", "fields"), [(COMPLETIONS, {"prompt": ["a", "b"]}), (RESPONSES, {"input": "a"})])
async def test_cancelled_batch_frees_the_workers(client, worker, path, fields):
    batch = await start(client, asks(path, "line", **fields), endpoint=path)
    async with worker.hearing_cancels() as next_cancel:
        job = await worker.take()
        await client.batches.cancel(batch.id)
        assert await next_cancel(timeout_s=10) == job.id
    batch = await ended(client, batch)
    (refusal,) = (await lines_of(client, batch.error_file_id)).values()

    assert (batch.status, refusal["error"]["code"]) == ("cancelled", "batch_cancelled")


async def test_batch_leaves_a_place_of_its_keys_share_to_who_waits_for_an_answer(
    own_gateway, keys_file, worker, broker
):
    async with connect(own_gateway(api_keys_file=keys_file), "key-pair") as client:
        batch = await start(client, *(line(f"line {n}") for n in range(3)))
        first = await worker.take()
        await asyncio.sleep(0.6)  # it looks for room twice
        async with asking(client.chat.completions.create(**body("by hand"))) as answer:
            by_hand = await worker.take()
            await worker.say(by_hand, "ok")
            await finish(worker, broker, by_hand)
            await answer
        await worker.say(first, "ok")
        await finish(worker, broker, first)
        for _ in range(2):
            await answer_next(worker, broker)
        batch = await ended(client, batch)

    assert words_of(by_hand) == "by hand"
    assert batch.request_counts.completed == 3
