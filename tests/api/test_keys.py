"""Several keys with a share each: who may ask, what, how much and how often, over all gateways."""

import asyncio
import hashlib
import json

import httpx2
import pytest
from openai import (
    APIStatusError,
    AuthenticationError,
    BadRequestError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
)

from api.app import create_app
from api.departure import Departure
from api.keyring import OPEN_PATHS
from api.settings import ApiSettings
from shared import keys
from tests.api.conftest import MODEL, GatewayProcess, asking, connect, until
from tests.api.standin import StandIn

HI = [{"role": "user", "content": "hi"}]
SHARES = {
    "free": {},
    "narrow": {"models": ["elsewhere"], "min_priority": 0},
    "pair": {"max_concurrent": 2},
    "patient": {"max_queued": 2},
    "slow": {"requests_per_minute": 2},
    "keeper": {"manages_adapters": True},
}


def ask(client, **fields):
    return client.chat.completions.create(**{"model": MODEL, "messages": HI, **fields})


def write_keys(path, shares) -> None:
    entries = [{"name": n, "sha256": hashlib.sha256(f"key-{n}".encode()).hexdigest(), **s} for n, s in shares.items()]
    path.write_text(json.dumps(entries))


@pytest.fixture(scope="session")
def keys_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("keys") / "keys.yaml"
    write_keys(path, SHARES)
    return path


@pytest.fixture
async def pair(gateways, keys_file, worker, broker):
    """Two gateways that share the keys, on which nothing has been asked yet."""
    for name in SHARES:
        await broker.delete(keys.open_jobs(name), keys.waiting_jobs(name), keys.rate(name))
    options = {"api_key": "operators", "api_keys_file": keys_file}
    return gateways(**options), gateways(**options, keep_alive_s=5)


@pytest.fixture
async def clients(pair):
    async with connect(pair[0], "key-pair") as first, connect(pair[1], "key-pair") as second:
        yield first, second


async def answered(client, worker, **fields) -> None:
    async with asking(ask(client, **fields)) as answer:
        await worker.answer("ok")
        await answer


async def test_job_carries_the_name_of_its_key_and_never_the_key(pair, worker, broker):
    async with connect(pair[0], "key-free") as client, asking(ask(client)) as answer:
        await until(lambda: broker.exists(keys.queue(MODEL)))
        (job_id,) = await broker.zrange(keys.queue(MODEL), 0, -1)
        raw = await broker.get(keys.payload(job_id.decode()))
        job = await worker.answer("ok")
        await answer

    assert job.key_name == "free"
    assert b"key-free" not in raw


async def test_operators_key_still_opens_beside_the_file(pair, worker):
    async with connect(pair[0], "operators") as client:
        await answered(client, worker)


async def test_every_route_but_the_watchers_needs_a_key(pair):
    """Whatever route is added later: what isn't named as open is closed."""
    app = create_app(ApiSettings(api_key="x"), "test", Departure())
    routes = [(route.path, method) for route in flat(app.routes) for method in route.methods]
    assert {path for path, _ in routes} > OPEN_PATHS

    async with httpx2.AsyncClient(base_url=pair[0].url, trust_env=False) as http:
        for path, method in routes:
            answer = await http.request(method, path)
            assert (answer.status_code == 401) == (path not in OPEN_PATHS), path


@pytest.mark.parametrize(
    "path",
    ["/v1/models", "//v1/models", "/V1/models", "/v1/../v1/models", "/health/live/../../v1/models", "/v1%2fmodels"],
)
@pytest.mark.parametrize("host", ["x", "x/health/live?", "x/metrics#"])
async def test_no_spelling_of_path_or_host_gets_around_the_key(pair, path, host):
    """Over a bare socket, as clients tidy paths up before they send them."""
    reader, writer = await asyncio.open_connection("127.0.0.1", pair[0].port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()

    assert answer.split(b" ", 2)[1] in {b"401", b"400"}
    assert MODEL.encode() not in answer


async def test_key_asks_its_own_models_only_and_sees_no_other(pair):
    async with connect(pair[0], "key-narrow") as client:
        with pytest.raises(PermissionDeniedError) as refusal:
            await ask(client)
        listed = await client.models.list()

    assert (refusal.value.code, refusal.value.param) == ("permission_denied", "model")
    assert "'narrow' may not ask the model 'parrot'; it may ask: elsewhere" in refusal.value.body["message"]
    assert listed.data == []


async def test_key_does_not_go_before_its_bound(pair, broker):
    elsewhere = StandIn(broker, "elsewhere")
    await elsewhere.beat()
    async with connect(pair[0], "key-narrow") as client:
        await until(lambda: lists(client, "elsewhere"))
        with pytest.raises(PermissionDeniedError) as refusal:
            await ask(client, model="elsewhere", extra_body={"priority": -1})
        await answered(client, elsewhere, model="elsewhere", extra_body={"priority": 1})

    assert refusal.value.param == "priority"


async def test_ordinary_key_changes_no_adapters(pair):
    async with httpx2.AsyncClient(base_url=pair[0].url, trust_env=False) as http:

        async def unload(key: str) -> httpx2.Response:
            headers = {"Authorization": f"Bearer {key}"}
            return await http.post("/v1/unload_lora_adapter", json={"lora_name": "none"}, headers=headers)

        assert (await unload("key-free")).status_code == 403
        assert (await unload("key-keeper")).status_code == 404
        assert (await unload("operators")).status_code == 404


async def test_concurrency_holds_over_all_gateways(clients, worker):
    first, second = clients
    async with asking(ask(first)) as one, asking(ask(second)) as two:
        jobs = [await worker.take(), await worker.take()]
        for client in clients:
            with pytest.raises(RateLimitError) as refusal:
                await ask(client)
        await end(worker, jobs)
        await asyncio.gather(one, two)
        await answered(second, worker)

    assert refusal.value.code == "rate_limit_exceeded"
    assert int(refusal.value.response.headers["retry-after"]) >= 1
    assert "'pair' has 2 requests at once, as many as may (max_concurrent)" in refusal.value.body["message"]


async def test_leaving_clients_give_their_share_back(clients, worker, broker):
    async with asking(ask(clients[0])) as one, asking(ask(clients[0])) as two:
        jobs = [await worker.take(), await worker.take()]
        one.cancel()
        two.cancel()

    async def are_gone() -> bool:
        return not await broker.exists(*(keys.payload(job.id) for job in jobs))

    await until(are_gone, timeout_s=20)
    await answered(clients[1], worker)


async def test_share_of_a_crashed_gateway_comes_back_when_its_jobs_end(
    redis_server, keys_file, clients, worker, broker
):
    doomed = GatewayProcess(redis_server.url, api_keys_file=keys_file)
    async with connect(doomed, "key-pair") as client, asking(ask(client)) as one, asking(ask(client)) as two:
        jobs = [await worker.take(), await worker.take()]
        doomed.process.kill()
        doomed.process.wait()
        await asyncio.wait({one, two})
        assert all(answer.exception() for answer in (one, two))
    with pytest.raises(RateLimitError):
        await ask(clients[0])
    await end(worker, jobs)

    await answered(clients[0], worker)


async def test_waiting_requests_of_a_key_are_limited_and_running_ones_are_not(pair, worker, broker):
    async with connect(pair[0], "key-patient") as client, asking(ask(client)) as running:
        job = await worker.take()
        async with asking(ask(client)) as one, asking(ask(client)) as two:
            await until(lambda: queue_has(broker, 2))
            with pytest.raises(RateLimitError) as refusal:
                await ask(client)
            assert await broker.zcard(keys.queue(MODEL)) == 2
            await end(worker, [job, await worker.take(), await worker.take()])
            await asyncio.gather(running, one, two)

    assert refusal.value.code == "queue_full"
    assert "(max_queued)" in refusal.value.body["message"]


async def test_rate_is_a_minutes_requests_at_once_and_then_one_by_one(pair, worker, broker):
    async with connect(pair[0], "key-slow") as client, connect(pair[1], "key-slow") as other:
        await answered(client, worker)
        await answered(other, worker)
        with pytest.raises(RateLimitError) as refusal:
            await ask(other)
        assert 1 <= int(refusal.value.response.headers["retry-after"]) <= 30
        assert "may send 2 requests a minute (requests_per_minute)" in refusal.value.body["message"]

        used_up = float(await broker.get(keys.rate("slow")))
        await broker.set(keys.rate("slow"), used_up - 30_000)  # half a minute later
        await answered(client, worker)
        with pytest.raises(RateLimitError):
            await ask(client)


async def test_refused_request_uses_nothing_up(pair, worker, broker):
    async with connect(pair[0], "key-slow") as client:
        for _ in range(3):
            with pytest.raises(APIStatusError):
                await ask(client, max_tokens=10**6)
        await answered(client, worker)
        await answered(client, worker)


async def test_changed_file_is_followed_and_a_broken_one_is_not(gateways, tmp_path, worker):
    path = tmp_path / "keys.yaml"
    write_keys(path, {"old": {}})
    gateway = gateways(api_keys_file=path)
    async with connect(gateway, "key-old") as old, connect(gateway, "key-new") as new:
        assert (await old.models.list()).data
        with pytest.raises(AuthenticationError):
            await new.models.list()

        write_keys(path, {"new": {}})
        assert (await new.models.list()).data
        with pytest.raises(AuthenticationError):
            await old.models.list()

        path.write_text("- {name: new, sha")
        assert (await new.models.list()).data
        path.unlink()
        assert (await new.models.list()).data


def flat(routes):
    """Every route, those of included routers too."""
    for route in routes:
        yield from flat(route.original_router.routes) if hasattr(route, "original_router") else [route]


async def end(worker, jobs) -> None:
    """End jobs as a worker does, their payloads and leases with them."""
    for job in jobs:
        await worker.say(job, "ok")
        await worker.redis.delete(keys.payload(job.id), keys.lease(job.id))
        await worker.finish(job)


async def queue_has(broker, num_jobs: int) -> bool:
    return await broker.zcard(keys.queue(MODEL)) == num_jobs


async def lists(client, model: str) -> bool:
    return model in [card.id for card in (await client.models.list()).data]


async def test_response_is_only_its_own_keys_business(pair, clients, worker):
    asked = {"model": MODEL, "input": "hi", "background": True}
    response = await clients[0].responses.create(**asked)

    async with connect(pair[1], "key-free") as stranger:
        for refused in (stranger.responses.retrieve, stranger.responses.cancel, stranger.responses.delete):
            with pytest.raises(NotFoundError):
                await refused(response.id)
        with pytest.raises(NotFoundError):
            await stranger.responses.input_items.list(response.id)
        await worker.answer("a")
        with pytest.raises(BadRequestError, match="no previous response"):
            await stranger.responses.create(**asked, previous_response_id=response.id)

    assert (await clients[1].responses.retrieve(response.id)).output_text == "a"
