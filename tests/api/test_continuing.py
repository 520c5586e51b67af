"""Streams of continued text that break: what follows any of their events can be had at any gateway."""

import asyncio
import signal

import httpx2
import pytest
from openai import APIError

from api.together import together
from baton import XRequestConfig, inference_client
from shared import keys
from shared.errors import ServerStopping
from shared.events import TextDelta
from shared.job import JobId
from tests.api.conftest import MODEL, GatewayProcess, asking, connect, served, until
from tests.api.test_completions import complete, scored, take_all, text_of


async def heard(http, completion_id: str, last_id: str | None = None) -> list[str]:
    url = f"/v1/completions/{completion_id}/events?include_usage=true"
    answer = await http.get(url, headers={} if last_id is None else {"Last-Event-ID": last_id})
    assert answer.status_code == 200
    return frames_of(answer.text)


def frames_of(text: str) -> list[str]:
    return [frame for frame in text.split("\n\n") if frame and not frame.startswith(":")]


def id_of(frame: str) -> str:
    return frame.partition("\n")[0].removeprefix("id: ")


@pytest.fixture
async def http(gateway):
    async with httpx2.AsyncClient(base_url=gateway.url, trust_env=False, timeout=30) as opened:
        yield opened


async def test_what_follows_any_event_is_what_the_stream_went_on_with(client, gateways, http, worker, broker):
    other = gateways(keep_alive_s=0.2, response_ttl_s=100)
    asked = {"model": MODEL, "prompt": "Once", "n": 2, "logprobs": 0, "stream": True}
    async with asking(http.post("/v1/completions", json=asked | {"stream_options": {"include_usage": True}})) as stream:
        job = await worker.take()
        await worker.say(job, "早", logprobs=(scored("早".encode()),))
        await worker.say(job, "x", index=1, logprobs=(scored(b"x"),))
        await worker.say(job, "b", logprobs=(scored(b"b"),))
        await worker.finish_choice(job, 1)
        await worker.finish(job)
        frames = frames_of((await stream).text)
    await broker.delete(keys.payload(job.id))

    assert [id_of(frame) for frame in frames[:-2]] == ["2,0", "2,3", "4,3", "4,5", "6,5"]
    assert frames[-1] == "data: [DONE]"
    async with httpx2.AsyncClient(base_url=other.url, trust_env=False) as elsewhere:
        assert await heard(elsewhere, job.id) == frames
        for number, frame in enumerate(frames[:-2], start=1):
            assert await heard(elsewhere, job.id, id_of(frame)) == frames[number:]


async def test_all_prompts_go_on_when_their_gateway_leaves(redis_server, http, worker):
    leaving = GatewayProcess(redis_server.url, drain_timeout_s=0)
    async with connect(leaving) as client, worker.hearing_cancels() as next_cancel:
        await until(lambda: served(client))
        async with asking(complete(client, ["a", "b"], echo=True, stream=True)) as opening:
            jobs = await take_all(worker, 2)
            await worker.say(jobs[1], "1")
            stream = await opening
            first = [await anext(stream), await anext(stream)]
            leaving.process.send_signal(signal.SIGINT)
            with pytest.raises(APIError, match="server is stopping"):
                [chunk async for chunk in stream]
        await asyncio.to_thread(leaving.process.wait, 20)
        with pytest.raises(AssertionError, match="no cancel came"):
            await next_cancel(timeout_s=0.2)
    for job in jobs:
        await worker.say(job, "2")
        await worker.finish(job)
    rest = "\n".join(await heard(http, first[0].id, "0,2"))

    assert text_of(first, 1) == "b1"
    assert '"text":"b' not in rest
    assert [rest.count(f'"index":{index},"text":"{text}"') for index, text in ((0, "a"), (0, "2"), (1, "2"))] == [1] * 3
    assert '"total_tokens":20' in rest


async def test_answer_of_another_kind_or_number_is_not_gone_on_with(client, http, worker):
    async with asking(complete(client)) as answer:
        job = await worker.answer("ok")
        await answer
    url = f"/v1/completions/{job.id}/events"
    refused = [await http.get(url, headers={"Last-Event-ID": given}) for given in ("1,1", "x")]
    unknown = [f"/v1/completions/{name}/events" for name in (f"{job.id}-2", f"chat{job.id}", "cmpl-0", "resp_0")]

    assert {(answer.status_code, answer.json()["error"]["param"]) for answer in refused} == {(400, "Last-Event-ID")}
    assert {(await http.get(other)).status_code for other in unknown} == {404}
    assert (await http.get(f"/v1/chat/completions/{job.id}/events")).status_code == 404


async def test_client_of_ours_goes_on_by_itself(redis_server, gateway, worker):
    leaving = GatewayProcess(redis_server.url)
    urls = [f"{one.url}/v1" for one in (leaving, gateway)]
    async with connect(leaving) as ready:
        await until(lambda: served(ready))

    def listen() -> str:
        config = XRequestConfig(max_tokens=9, stream=True)
        chunks = inference_client(MODEL, "Once", request_config=config, url=urls, is_chat=False, is_multimodal=False)
        return "".join(chunk.choices[0].text for chunk in chunks)

    async with asking(asyncio.to_thread(listen)) as text:
        job = await worker.take()
        await worker.say(job, "half ")
        await until(lambda: delivered(leaving))
        leaving.process.kill()
        await worker.say(job, "an answer")
        await worker.finish(job)

        assert await text == "half an answer"
    await asyncio.to_thread(leaving.process.wait, 20)


async def delivered(gateway: GatewayProcess) -> bool:
    async with httpx2.AsyncClient(trust_env=False) as http:
        metrics = (await http.get(f"{gateway.url}/metrics")).text
    return 'baton:time_to_first_token_seconds_count{model_name="parrot"} 1.0' in metrics


async def test_streams_that_are_all_told_to_stop_are_heard_to_their_ends():
    """Whichever was closed before it heard of it would cancel its job."""
    ends = []

    async def stream(*texts):
        try:
            for text in texts:
                yield [TextDelta(job_id=JobId("a"), attempt=1, seq=1, text=text, token_ids=())]
            raise ServerStopping("stopping")
        except BaseException as error:
            ends.append(type(error))
            raise

    with pytest.raises(ServerStopping):
        [events async for events in together([stream(), stream("a", "b")])]

    assert ends == [ServerStopping, ServerStopping]
