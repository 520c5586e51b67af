"""How long a request may take, who goes first, and what a waiting stream is told."""

import asyncio
import time
from contextlib import closing

import httpx2
import pytest
from openai import APIStatusError, BadRequestError
from prometheus_client.parser import text_string_to_metric_families

from shared import keys
from tests.api.conftest import MODEL, asking, until
from tests.api.test_chat import open_stream, queue_has, read_all, read_until

HI = [{"role": "user", "content": "hi"}]


def ask(client, **fields):
    return client.chat.completions.create(**{"model": MODEL, "messages": HI} | fields)


async def test_timeout_of_a_request_is_its_deadline_everywhere(broker, client, worker):
    async with asking(ask(client, extra_body={"timeout": 30})) as answer:
        await until(lambda: queue_has(broker, 1))
        (job_id,) = await broker.zrange(keys.queue(MODEL), 0, -1)
        kept_ms = await broker.pttl(keys.payload(job_id.decode()))
        job = await worker.answer("ok")
        await answer

    assert job.deadline_s == job.created_s + 30
    assert 0 < kept_ms <= 30_000


@pytest.mark.parametrize("stream", [False, True])
async def test_request_that_nobody_takes_in_time_is_a_504_and_leaves_the_queue(broker, client, worker, stream):
    with pytest.raises(APIStatusError) as caught:
        await ask(client, stream=stream, extra_body={"timeout": 0.3})

    assert (caught.value.status_code, caught.value.body["code"]) == (504, "deadline_exceeded")
    assert "within 0.3 s" in caught.value.body["message"]
    await until(lambda: queue_has(broker, 0))


async def test_open_stream_that_is_late_ends_in_an_error_frame(gateway, client, worker):
    with closing(open_stream(gateway, timeout=1.5)) as connection:
        job = await worker.take()
        await worker.say(job, "half")
        raw = await read_all(connection)

    assert raw.startswith(b"HTTP/1.1 200")
    assert b'"code":"deadline_exceeded"' in raw
    assert b"[DONE]" not in raw


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"timeout": 601}, "601 s, and this server lets a request take 600 s"),
        ({"timeout": 0}, "greater than 0"),
        ({"timeout": "1"}, "valid number"),
        ({"priority": 1001}, "less than or equal to 1000"),
        ({"priority": 0.5}, "valid integer"),
    ],
)
async def test_impossible_limit_is_told(client, fields, words):
    with pytest.raises(BadRequestError, match=words) as refusal:
        await ask(client, extra_body=fields)

    assert refusal.value.param == next(iter(fields))


async def test_lower_priority_goes_first_and_equals_in_their_order(broker, client, worker):
    async with asyncio.TaskGroup() as group:
        for number, priority in enumerate((0, 5, -3, None, 5, -3)):
            text = f"{priority or 0} {number}"
            fields = {"messages": [{"role": "user", "content": text}], "extra_body": {"priority": priority}}
            group.create_task(ask(client, **fields))
            await until(lambda number=number: queue_has(broker, number + 1))
        jobs = [await worker.answer("ok") for _ in range(6)]

    assert [job.messages[0].parts[0].text for job in jobs] == ["-3 2", "-3 5", "0 0", "0 3", "5 1", "5 4"]
    assert [job.priority for job in jobs] == [-3, -3, 0, 0, 5, 5]


async def test_waiting_stream_is_told_how_many_are_ahead(gateway, broker, client, worker):
    """Both streams are open and silent; the first one's comment counts nobody, the second one's counts the first."""
    with closing(open_stream(gateway)) as first:
        await until(lambda: queue_has(broker, 1))
        with closing(open_stream(gateway)) as second:
            await read_until(first, b": queued, 0 ahead\n")
            await read_until(second, b": queued, 1 ahead\n")
            await worker.answer("ok")
            await read_all(first)
            await read_until(second, b": queued, 0 ahead\n")
            await worker.answer("ok")
            rest = await read_all(second)

    assert b"[DONE]" in rest


async def test_positions_cost_one_range_a_tick_however_many_wait(gateway, broker, client, worker):
    async def num_ranges() -> int:
        return (await broker.info("commandstats")).get("cmdstat_zrange", {"calls": 0})["calls"]

    streams = [open_stream(gateway) for _ in range(12)]
    for stream in streams:
        await read_until(stream, b"ahead\n")
    before, began_s = await num_ranges(), time.monotonic()

    async def has_ticked() -> bool:
        return await num_ranges() >= before + 2

    await until(has_ticked, timeout_s=20)
    num_ticks, num_asked = time.monotonic() - began_s, await num_ranges() - before
    for _ in streams:
        await worker.answer("ok")
    for stream in streams:
        await read_all(stream)
        stream.close()

    assert num_asked <= num_ticks + 1


async def test_running_stream_is_told_no_position(gateway, client, worker):
    with closing(open_stream(gateway)) as connection:
        job = await worker.take()
        opened = await read_until(connection, b": ping")
        await worker.say(job, "x")
        await worker.finish(job)
        rest = await read_all(connection)

    assert b"queued" not in opened + rest


async def test_metrics_tell_what_became_of_requests_in_the_fields_names(gateways, client, worker):
    gateway = gateways(max_queue_len=1, first_event_wait_s=1)
    async with httpx2.AsyncClient(base_url=gateway.url, trust_env=False, timeout=20) as http:

        async def post(**fields) -> httpx2.Response:
            return await http.post("/v1/chat/completions", json={"model": MODEL, "messages": HI} | fields)

        async with asking(post()) as answer:
            job = await worker.take()
            await worker.say(job, "a ", "b ")
            await until(lambda: has_begun(http))  # what arrives at once counts once
            await worker.say(job, "c ")
            await worker.finish(job)
            await answer
        async with asking(post()) as answer:
            await until(lambda: queue_has(worker.redis, 1))
            assert (await post()).status_code == 429
            waiting = await scrape(http)
            await worker.answer("ok")
            await answer
        assert (await post(timeout=0.05)).status_code == 504
        assert (await post(model="invented-by-a-client")).status_code == 404
        assert (await http.get("/v1/nothing/at/all")).status_code == 404
        counted = await scrape(http)

    of_model = f'{{model_name="{MODEL}"'
    assert waiting[f"baton:num_requests_waiting{of_model}}}"] == waiting[f"baton:num_requests_open{of_model}}}"] == 1
    assert counted[f'baton:request_success_total{{finished_reason="stop",model_name="{MODEL}"}}'] == 2
    assert counted[f'baton:request_failure_total{{code="deadline_exceeded",model_name="{MODEL}"}}'] == 1
    assert counted['baton:admission_rejections_total{reason="queue"}'] == 1
    for name, count in (("time_to_first_token", 2), ("e2e_request_latency", 2), ("inter_token_latency", 1)):
        assert counted[f"baton:{name}_seconds_count{of_model}}}"] == count, name
    assert counted['baton:http_requests_total{method="POST",path="/v1/chat/completions",status="429"}'] == 1
    assert counted['baton:http_requests_total{method="GET",path="unmatched",status="404"}'] == 1
    assert not [name for name in counted if "invented" in name or "nothing" in name]


async def has_begun(http) -> bool:
    counted = await scrape(http)
    return counted.get(f'baton:time_to_first_token_seconds_count{{model_name="{MODEL}"}}') == 1


async def scrape(http) -> dict[str, float]:
    """Every sample of the page, labels sorted by name."""

    page = (await http.get("/metrics")).text
    samples = [sample for family in text_string_to_metric_families(page) for sample in family.samples]
    return {f"{s.name}{labels(s.labels)}": s.value for s in samples}


def labels(named: dict[str, str]) -> str:
    return "{" + ",".join(f'{name}="{value}"' for name, value in sorted(named.items())) + "}"
