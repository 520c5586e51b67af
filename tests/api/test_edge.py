"""What the gateway says when it can't answer: every refusal in OpenAI's shape."""

import re
import time
from collections.abc import AsyncIterator

import httpx2
import pytest
from openai import APIStatusError, AuthenticationError, NotFoundError
from redis.asyncio import Redis

from baton.embedded import EmbeddedRedis
from shared import keys, wire
from shared.fleet import WorkerState
from tests.api.conftest import MODEL, GatewayProcess, connect, until
from tests.api.standin import StandIn

HI = [{"role": "user", "content": "hi"}]


@pytest.fixture
async def http(gateway, client):
    async with httpx2.AsyncClient(base_url=gateway.url, trust_env=False) as opened:
        yield opened


async def refusal(client, **fields) -> APIStatusError:
    with pytest.raises(APIStatusError) as caught:
        await client.chat.completions.create(**{"model": MODEL, "messages": HI, **fields})
    return caught.value


@pytest.mark.parametrize(
    ("fields", "param", "says"),
    [
        ({"messages": []}, "messages", "at least one"),
        ({"messages": [*HI, {"role": "assistant", "content": "x"}]}, "messages[1].role", "role user"),
        ({"messages": [*HI, {"role": "system", "content": "x"}, *HI]}, "messages[1].role", "first message"),
        ({"max_tokens": 4097}, "max_tokens", "4097.*4096"),
        ({"max_completion_tokens": 4097}, "max_completion_tokens", "4097.*4096"),
        ({"max_tokens": 1, "max_completion_tokens": 2}, "max_completion_tokens", "1.*2"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "stream is true"),
        ({"extra_body": {"num_beams": 2}}, "num_beams", "not supported"),
        ({"extra_body": {"best": 1}}, "best", "Unknown field"),
        ({"extra_body": {"images": ["/etc/passwd"]}}, "images[0]", "nor a file that this server may read"),
        ({"extra_body": {"images": ["A" * 40] * 65}}, "images[64]", "at most 64"),
        ({"extra_body": {"audios": ["A" * 40]}}, "audios[0]", "takes text and image and video only, no audio"),
        (
            {"messages": [{"role": "user", "content": "<image><image>"}], "extra_body": {"images": ["x"]}},
            "images",
            "2 <image> tags",
        ),
    ],
)
async def test_bad_request_names_its_field(client, broker, fields, param, says):
    error = await refusal(client, **fields)

    assert error.status_code == 400
    assert error.body["type"] == "invalid_request_error"
    assert error.body["param"] == param
    assert re.search(says, error.body["message"])
    assert not await broker.exists(keys.queue(MODEL))


async def test_media_the_model_does_not_take_are_refused_unfetched(broker, gateway, client):
    await StandIn(broker, "text-only", modalities=()).beat()
    await until(lambda: lists(client, "text-only"))

    error = await refusal(client, model="text-only", extra_body={"images": "http://10.255.255.1/never"})

    assert (error.status_code, error.body["param"]) == (400, "images[0]")
    assert "takes text only" in error.body["message"]


async def test_unknown_model_is_not_found(client):
    with pytest.raises(NotFoundError, match=f"served are:.*{MODEL}") as caught:
        await client.chat.completions.create(model="no such\nmodel", messages=HI)

    assert caught.value.body["code"] == "model_not_found"


async def test_known_model_without_a_worker_is_unavailable(broker, client):
    await StandIn(broker, "retired").beat(lives_s=-5)
    await StandIn(broker, "leaving").beat(WorkerState.DRAINING)
    await StandIn(broker, "coming").beat(WorkerState.LOADING)
    await until(lambda: says(client, "coming", "loading"))

    for model, words in (("retired", "No live"), ("leaving", "No live"), ("fake", "No live"), ("coming", "loading")):
        error = await refusal(client, model=model)
        assert error.status_code == 503
        assert error.body["code"] == "model_unavailable"
        assert words in error.body["message"]
        assert error.response.headers["retry-after"]


async def test_heartbeat_of_another_version_is_passed_over(broker, client):
    await broker.set(keys.worker("alien"), wire.VERSION + b"rubbish")
    await broker.zadd(keys.WORKERS, {"alien": time.time() + 60, "vanished": time.time() + 60})
    await StandIn(broker, "newcomer").beat()

    await until(lambda: lists(client, "newcomer"))
    assert await lists(client, MODEL)


async def test_models_are_listed_as_openai_does(http):
    listed = (await http.get("/v1/models")).json()

    assert listed["object"] == "list"
    assert {
        "id": MODEL,
        "object": "model",
        "created": 1_700_000_000,
        "owned_by": "baton",
        "is_chat": True,
        "is_multimodal": True,
    } in listed["data"]


async def test_unknown_paths_and_methods_are_refused(http):
    for answer, status, code in (
        (await http.get("/v1/nothing"), 404, "unknown_url"),
        (await http.get("/v1/chat/completions"), 405, "method_not_allowed"),
        (await http.get("/redoc"), 404, "unknown_url"),
    ):
        assert answer.status_code == status
        assert answer.json()["error"]["code"] == code
        assert answer.json()["error"]["type"] == "invalid_request_error"


async def test_malformed_json_is_refused(http):
    answer = await http.post("/v1/chat/completions", content=b'{"model": ')

    assert answer.status_code == 400
    assert "not valid JSON" in answer.json()["error"]["message"]


async def test_large_body_is_refused_announced_or_not(gateways, client):
    small = gateways(max_body_bytes=1000)

    async def chunks():
        for _ in range(3):
            yield b" " * 500

    async with httpx2.AsyncClient(base_url=small.url, trust_env=False) as http:
        for content in (b" " * 1001, chunks()):
            answer = await http.post("/v1/chat/completions", content=content)
            assert answer.status_code == 413
            assert "larger than 1000 bytes" in answer.json()["error"]["message"]
        exactly = await http.post("/v1/chat/completions", content=b" " * 1000)
        assert exactly.status_code == 400


async def test_key_guards_everything_under_v1(gateways, worker):
    guarded = gateways(api_key="sécret")
    async with connect(guarded, "wrong") as client:
        with pytest.raises(AuthenticationError) as caught:
            await client.models.list()
        assert caught.value.body["code"] == "invalid_api_key"

    async with httpx2.AsyncClient(base_url=guarded.url, trust_env=False) as http:
        for path in ("/v1/models", "/v1/chat/completions", "/v1/nothing", "/v1"):
            assert (await http.get(path)).status_code == 401
        for header in ("sécret", "Basic sécret", "Bearer", "Bearer sécret2"):
            answer = await http.get("/v1/models", headers=[(b"authorization", header.encode())])
            assert answer.status_code == 401
        right = await http.get("/v1/models", headers=[(b"authorization", "bearer sécret".encode())])
        assert right.status_code == 200
        assert (await http.get("/health/live")).status_code == 200


@pytest.fixture
async def alone() -> AsyncIterator[tuple[GatewayProcess, StandIn]]:
    """A gateway and a worker whose Redis knows no others."""
    with EmbeddedRedis() as server:
        gateway = GatewayProcess(server.url)
        async with Redis.from_url(server.url) as redis:
            yield gateway, StandIn(redis, MODEL)
        gateway.stop()


async def test_ready_says_why_not(alone):
    gateway, worker = alone
    async with httpx2.AsyncClient(base_url=gateway.url, trust_env=False) as http:

        async def ready(status: int) -> bool:
            return (await http.get("/health/ready")).status_code == status

        async def reason(expected: str) -> bool:
            return (await http.get("/health/ready")).json().get("reason") == expected

        await worker.beat()
        await until(lambda: ready(200))
        assert MODEL in (await http.get("/health/ready")).json()["models"]

        await worker.beat(lives_s=-1)
        await until(lambda: ready(503))
        assert await reason("no live worker")

        await worker.beat(WorkerState.LOADING)
        await until(lambda: reason(f"loading {MODEL}"))

        await worker.beat()
        await until(lambda: ready(200))


async def says(client, model: str, words: str) -> bool:
    return words in (await refusal(client, model=model)).body["message"]


async def lists(client, model: str) -> bool:
    return model in [card.id for card in (await client.models.list()).data]
