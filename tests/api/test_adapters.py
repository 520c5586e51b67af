"""Adapters as model ids, and who may change what is served; the calls themselves are proven with real workers."""

import asyncio

import httpx2
import pytest
from openai import APIStatusError, NotFoundError

from shared import keys
from tests.api.conftest import connect, until
from tests.api.standin import StandIn

HI = [{"role": "user", "content": "hi"}]


@pytest.fixture
async def tuned(broker, client):
    """A worker with two adapters."""
    worker = StandIn(broker, "base", adapters=("pirate", "poet"))
    await worker.beat()
    await until(lambda: lists(client, "poet"))
    yield worker
    await worker.beat(lives_s=-5)


async def lists(client, model):
    return any(card.id == model for card in (await client.models.list()).data)


async def test_adapters_are_listed_after_their_base(client, tuned):
    cards = [card for card in (await client.models.list()).data if "base" in (card.id, getattr(card, "parent", None))]

    assert [card.id for card in cards] == ["base", "pirate", "poet"]
    assert [getattr(card, "parent", None) for card in cards] == [None, "base", "base"]
    assert "parent" not in cards[0].model_dump()


@pytest.mark.parametrize("asked", ["base", "poet"])
async def test_job_for_an_adapter_waits_in_its_bases_queue_and_answers_under_its_own_name(client, tuned, asked):
    answering = asyncio.ensure_future(tuned.answer("ay"))
    answer = await client.chat.completions.create(model=asked, messages=HI)
    job = await answering

    assert (job.model, job.adapter) == ("base", None if asked == "base" else asked)
    assert answer.model == asked


async def test_stream_of_an_adapter_carries_its_name(client, tuned):
    answering = asyncio.ensure_future(tuned.answer("ay", "ay"))
    stream = await client.chat.completions.create(model="pirate", messages=HI, stream=True)
    models = {chunk.model async for chunk in stream}
    await answering

    assert models == {"pirate"}


async def test_unloaded_adapter_is_not_found_and_one_whose_workers_died_is_unavailable(broker, client, tuned):
    await StandIn(broker, "base", adapters=("pirate",)).beat()
    await until(lambda: lacks(client, "poet"))
    with pytest.raises(NotFoundError, match=r"'poet' does not exist here; served are:.*base.*pirate"):
        await client.chat.completions.create(model="poet", messages=HI)

    await StandIn(broker, "base", adapters=("pirate",)).beat(lives_s=-5)
    await until(lambda: lacks(client, "pirate"))
    with pytest.raises(APIStatusError) as refusal:
        await client.chat.completions.create(model="pirate", messages=HI)
    assert (refusal.value.status_code, refusal.value.body["code"]) == (503, "model_unavailable")


async def lacks(client, model):
    return not await lists(client, model)


@pytest.mark.parametrize("verb", ["load", "unload"])
async def test_without_a_key_of_its_own_the_gateway_lets_nobody_change_what_is_served(gateway, tuned, broker, verb):
    async with httpx2.AsyncClient(base_url=gateway.url, trust_env=False) as http:
        answer = await http.post(f"/v1/{verb}_lora_adapter", json={"lora_name": "x", "lora_path": "/x"})

    assert answer.status_code == 403
    assert answer.json()["error"]["code"] == "permission_denied"
    assert "--allow_unauthenticated_lora" in answer.json()["error"]["message"]
    assert not await broker.exists(keys.adapters("base"))


async def test_several_bases_ask_for_a_name_and_the_setting_opens_the_call(gateways, client, tuned):
    open_gateway = gateways(allow_unauthenticated_lora="true")
    async with connect(open_gateway) as other:
        await until(lambda: lists(other, "poet"))
    async with httpx2.AsyncClient(base_url=open_gateway.url, trust_env=False) as http:
        answer = await http.post("/v1/load_lora_adapter", json={"lora_name": "x", "lora_path": "/x"})
        taken = await http.post(
            "/v1/load_lora_adapter", json={"lora_name": "poet", "lora_path": "/x", "base_model": "parrot"}
        )

    assert answer.status_code == taken.status_code == 400
    assert answer.json()["error"]["param"] == "base_model"
    assert "base" in answer.json()["error"]["message"]
    assert "taken by a model" in taken.json()["error"]["message"]
