"""The small routes beside a chat: one model, the release, and an end before the end."""

import asyncio
import contextlib
from importlib.metadata import version

import httpx2
import pytest
from openai import APIError, APIStatusError, AsyncStream, NotFoundError

from api.identity import raw_id
from shared import keys
from shared.events import FinishReason
from tests.api.conftest import MODEL, asking, connect, until
from tests.api.standin import StandIn
from tests.api.test_keys import keys_file as keys_file
from tests.api.test_keys import pair as pair

HELLO = [{"role": "user", "content": "hi"}]
TUNED = "team/parrot:tuned@2"


def ask(client, **fields):
    return client.chat.completions.create(**{"model": MODEL, "messages": HELLO, **fields})


def cancel(gateway, job_id, key="none", kind="chat/completions"):
    url = f"{gateway.url}/v1/{kind}/{job_id}/cancel"
    return httpx2.post(url, headers={"Authorization": f"Bearer {key}"}, trust_env=False)


@pytest.fixture
async def slashed(broker):
    standin = StandIn(broker, "team/parrot", adapters=(TUNED,))
    await standin.beat()
    yield standin
    await broker.zrem("workers", standin.facts.id)


async def test_one_model_is_shown_as_the_list_shows_it(client, slashed):
    await until(lambda: listed(client, TUNED))
    cards = {card.id: card for card in (await client.models.list()).data}

    for name in (MODEL, "team/parrot", TUNED):
        assert await client.models.retrieve(name) == cards[name]


async def listed(client, name):
    return name in {card.id for card in (await client.models.list()).data}


async def test_model_that_is_not_there_is_openais_404(client):
    with pytest.raises(NotFoundError) as refusal:
        await client.models.retrieve("nobody/nothing")

    assert (refusal.value.code, refusal.value.param) == ("model_not_found", "model")


async def test_model_of_other_keys_is_not_there(pair, worker):
    async with connect(pair[0], "key-free") as free, connect(pair[0], "key-narrow") as narrow:
        await until(lambda: listed(free, MODEL))
        assert (await free.models.retrieve(MODEL)).id == MODEL
        with pytest.raises(NotFoundError):
            await narrow.models.retrieve(MODEL)


async def test_version_is_the_installed_one_and_needs_a_key(gateway, pair):
    assert httpx2.get(f"{gateway.url}/version", trust_env=False).json() == {"version": version("baton")}
    assert httpx2.get(f"{pair[0].url}/version", trust_env=False).status_code == 401


async def test_waiting_answer_is_ended_from_another_gateway(gateways, client, worker):
    other = gateways(keep_alive_s=7)
    async with asking(ask(client)) as plain:
        job = await worker.take()
        await worker.redis.hdel(f"lease:{job.id}", "holder")  # as if nobody had claimed it yet
        told = cancel(other, job.id).json()
        with pytest.raises(APIStatusError) as ended:
            await plain

    assert told == cancel(other, job.id).json() == {"id": job.id, "object": "chat.completion", "cancelled": True}
    assert (ended.value.status_code, ended.value.code) == (499, "cancelled")
    assert ended.value.response.headers["x-should-retry"] == "false"


async def test_cancelled_stream_ends_in_an_error_frame(gateways, client, worker):
    other = gateways(keep_alive_s=7)
    async with asking(ask(client, stream=True)) as opening:
        job = await worker.take()
        await worker.say(job, "half")
        stream = await opening
        words = [(await anext(stream)).choices[0].delta.content for _ in range(2)]
        cancel(other, job.id)
        with pytest.raises(APIError, match="cancelled") as ended:
            await anext(stream)
        await stream.close()

    assert ended.value.code == "cancelled"
    assert words == ["", "half"]


@pytest.mark.parametrize("is_streamed", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize("prompt", ["a", ["a", "b", "c"]], ids=["one prompt", "three prompts"])
async def test_continuations_of_all_prompts_are_ended_from_another_gateway(
    gateways, client, worker, prompt, is_streamed
):
    other = gateways(keep_alive_s=7)
    asked = client.completions.create(model=MODEL, prompt=prompt, stream=is_streamed)
    async with worker.hearing_cancels() as next_cancel, asking(read(asked)) as answer:
        jobs = {job.id: job for job in [await worker.take() for _ in prompt]}
        completion_id = raw_id(min(jobs).split("-")[1], len(jobs))
        await worker.say(next(iter(jobs.values())), "half")

        telling = asyncio.create_task(asyncio.to_thread(cancel, other, completion_id, kind="completions"))
        heard = {await next_cancel() for _ in jobs}
        for job in jobs.values():
            await worker.finish(job, FinishReason.CANCELLED)
            await worker.redis.delete(keys.payload(job.id), keys.lease(job.id))
        with pytest.raises(APIError, match="cancelled") as ended:
            await answer

    told = (await telling).json()
    assert heard == {*jobs}
    assert told == {"id": completion_id, "object": "text_completion", "cancelled": True}
    assert told == cancel(other, completion_id, kind="completions").json()
    assert ended.value.code == "cancelled"


async def read(asked):
    """Read an answer to its end, streamed or not."""
    answer = await asked
    return [chunk async for chunk in answer] if isinstance(answer, AsyncStream) else answer


async def test_prompt_that_has_ended_keeps_no_other_from_being_cancelled(client, gateway, worker):
    async with asking(client.completions.create(model=MODEL, prompt=["a", "b"])) as answer:
        first, second = sorted([await worker.take(), await worker.take()], key=lambda job: job.id)
        await worker.redis.hdel(keys.lease(second.id), "holder")  # as if nobody had claimed it yet
        await worker.redis.delete(keys.payload(first.id), keys.log(first.id))  # its end is forgotten
        told = cancel(gateway, first.id.removesuffix("-0"), kind="completions")
        with pytest.raises(APIStatusError, match="cancelled"):
            await answer

    assert told.json()["cancelled"] is True


@pytest.mark.parametrize("unknown", ["cmpl-0", "cmpl-0-3", "chatcmpl-0", "resp_0", "cmpl-0-1000"])
async def test_continuation_that_is_not_there_is_not_found(gateway, unknown):
    told = cancel(gateway, unknown, kind="completions")

    assert (told.status_code, told.json()["error"]["param"]) == (404, "id")


async def test_only_the_key_that_asked_may_cancel_its_continuations(pair, worker):
    async with connect(pair[0], "key-free") as client:
        asked = client.completions.create(model=MODEL, prompt=["a", "b"])
        async with asking(asked) as plain:
            jobs = [await worker.take(), await worker.take()]
            completion_id = min(job.id for job in jobs).removesuffix("-0")
            for job in jobs:
                await worker.redis.hdel(keys.lease(job.id), "holder")

            assert cancel(pair[1], completion_id, "key-slow", "completions").status_code == 404
            assert cancel(pair[1], completion_id, "key-free", "completions").json()["cancelled"] is True
            with contextlib.suppress(APIStatusError):
                await plain


async def test_ended_answer_stays_as_it_is_and_an_unknown_one_is_not_found(client, gateway, worker):
    async with asking(ask(client)) as plain:
        job = await worker.answer("ok")
        await worker.redis.delete(f"arq:job:{job.id}")  # as the publishing script does
        await plain

    assert cancel(gateway, job.id).json()["cancelled"] is False
    assert cancel(gateway, "chatcmpl-0").status_code == 404


async def test_only_the_key_that_asked_may_cancel(pair, worker):
    async with connect(pair[0], "key-free") as client, asking(ask(client)) as plain:
        job = await worker.take()

        assert cancel(pair[1], job.id, "key-slow").status_code == 404
        assert cancel(pair[1], job.id, "key-free").json()["cancelled"] is True
        with contextlib.suppress(APIStatusError):
            await plain


async def test_what_became_of_an_answer_is_told_to_the_key_that_asked_and_no_other(pair, worker, broker):
    async with connect(pair[0], "key-free") as client, asking(ask(client)) as plain:
        job = await worker.take()
        await worker.say(job, "secret")
        before = [events(pair[1], job.id, "key-slow").json(), cancel(pair[1], job.id, "key-slow").json()]
        await worker.finish(job)
        await broker.delete(keys.payload(job.id))
        await plain
    after = [events(pair[1], job.id, "key-slow").json(), cancel(pair[1], job.id, "key-slow").json()]
    unknown = f"chatcmpl-{'0' * 32}"
    nothing = [events(pair[1], unknown, "key-slow").json(), cancel(pair[1], unknown, "key-slow").json()]

    assert before == after == [named(told, job.id) for told in nothing]
    assert cancel(pair[1], job.id, "key-free").json()["cancelled"] is False
    assert "secret" in events(pair[1], job.id, "key-free").text


def events(gateway, job_id, key):
    url = f"{gateway.url}/v1/chat/completions/{job_id}/events"
    return httpx2.get(url, headers={"Authorization": f"Bearer {key}"}, trust_env=False)


def named(told: dict, job_id: str) -> dict:
    """What is said of an unknown answer, as if it had this id."""
    message = told["error"]["message"].replace(f"chatcmpl-{'0' * 32}", job_id)
    return {"error": told["error"] | {"message": message}}
