"""Whatever a body holds, the gateway answers it, keeps its size, and goes on: by the document, and against it."""

import asyncio
import base64
import codecs
import contextlib
import json
import os
import random

import httpx2
import psutil
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import negative_data_rejection

from tests.api.conftest import MODEL, GatewayProcess
from tests.api.standin import StandIn
from tests.fuzz.mutations import corpus

OPTIONS = {"allow_private_media_hosts": "true", "first_event_wait_s": 1, "keep_alive_s": 0.2, "request_timeout_s": 60}
NUM_EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "5"))
"""Of requests that each route is to be sent, and of ones that it isn't."""
MAX_GROWTH_BYTES = 96 * 2**20
TEXT = {"type": "text", "text": "a"}
PLAIN = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture(scope="module")
async def served(gateways, broker) -> GatewayProcess:
    """A gateway with a worker behind it that answers every job with one word."""
    worker = StandIn(broker, MODEL)
    await worker.beat()
    gateway = gateways(**OPTIONS)

    async def answer() -> None:
        while True:
            job = await worker.take(timeout_s=3600)  # giving up in the middle of a pop would lose a job
            await worker.say(job, "word")
            await worker.finish(job)

    answering = asyncio.create_task(answer())
    yield gateway
    answering.cancel()
    await asyncio.wait([answering])


@pytest.fixture
async def http(served):
    async with httpx2.AsyncClient(base_url=served.url, trust_env=False, timeout=30) as client:
        yield client


@pytest.fixture
def growth(served):
    """How many bytes the gateway grew by."""
    memory = psutil.Process(served.process.pid).memory_info
    before = memory().rss
    return lambda: memory().rss - before


@pytest.mark.timeout(120 * NUM_EXAMPLES)
async def test_document_describes_what_the_gateway_does(served):
    schema = schemathesis.openapi.from_url(f"{served.url}/openapi.json", timeout=60)

    for operation in schema.get_all_operations():
        for mode in GenerationMode:
            await asyncio.to_thread(ask_for, operation.ok(), mode)


FORMS = {"/v1/files", "/v1/audio/transcriptions"}
UNSENT = [negative_data_rejection]
"""What is wrong in a form may be gone from it: an empty list is no field at all."""
UNSAYABLE = ("n", "logprobs", "top_logprobs")
"""The stand-in worker says one answer, and not how likely."""


def ask_for(operation, mode):
    """Send requests that the document allows, or some that it forbids."""

    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(
        max_examples=NUM_EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    def is_answered(case):
        if isinstance(case.body, dict) and operation.path in {"/v1/chat/completions", "/v1/completions"}:
            if isinstance(case.body.get("model"), str):  # else its absence may be what the document forbids
                case.body["model"] = MODEL  # an unknown one is refused before anything else is looked at
            for name in UNSAYABLE if mode is GenerationMode.POSITIVE else ():  # a forbidden one is to be refused
                case.body.pop(name, None)
        answer = case.call(timeout=30)
        assert answer.status_code < 500 or answer.status_code in {503, 504}, answer.text  # no time, if none is given
        if answer.status_code >= 400 and not operation.path.startswith("/health"):
            assert answer.json()["error"]["message"]
        if answer.status_code == 200:
            case.validate_response(answer, excluded_checks=UNSENT if operation.path in FORMS else [])

    with contextlib.suppress(Unsatisfiable):  # what takes nothing can't be sent anything wrong
        is_answered()


def nested(depth: int, opening: str = "[", closing: str = "]") -> str:
    return opening * depth + closing * depth


def with_text(text: str) -> str:
    return '{"model": "%s", "messages": [{"role": "user", "content": "%s"}]}' % (MODEL, text)  # noqa: UP031


def with_field(name: str, value: str) -> str:
    return json.dumps(PLAIN)[:-1] + f', "{name}": {value}}}'


NUMBERS = (
    "1e400",
    "-1e400",
    "NaN",
    "Infinity",
    "-Infinity",
    "1" * 400,
    "-" + "9" * 5000,
    "1e-400",
    "0x10",
    "01",
    ".5",
    "+1",
    "1_0",
)
FIELDS = ("temperature", "top_p", "top_k", "seed", "max_tokens", "n", "stop", "stream", "images", "messages")
"""Each meets each of the numbers."""

BODIES = {
    "nothing": b"",
    "blanks": b" " * 10**6,
    "nulls": bytes(1000),
    "deep lists": nested(100_000).encode(),
    "deep objects": nested(50_000, '{"a":', "}").encode(),
    "deep content": with_field("messages", nested(500)).encode(),
    "deep value": with_field("metadata", nested(120)).encode(),
    "utf-16": codecs.BOM_UTF16_LE + json.dumps(PLAIN).encode("utf-16-le"),
    "utf-32": json.dumps(PLAIN).encode("utf-32"),
    "utf-8 with a mark": codecs.BOM_UTF8 + json.dumps(PLAIN).encode(),
    "latin-1": with_text("caf\xe9").encode("latin-1"),
    "overlong": with_text("X").encode().replace(b"X", b"\xc0\x80"),
    "surrogate bytes": with_text("X").encode().replace(b"X", b"\xed\xa0\x80"),
    "lone surrogate": with_text("\\ud800").encode(),
    "lone surrogate in a name": json.dumps(PLAIN)[:-1].encode() + b', "\\udfff": 1}',
    "surrogates in an address": with_field("images", '["\\ud83d"]').encode(),
    "null character": with_text("a\\u0000b").encode(),
    "null in the model": json.dumps(PLAIN | {"model": "a\0b"}).encode(),
    "null in an address": json.dumps(PLAIN | {"images": ["http://a\0b/"]}).encode(),
    "raw control characters": with_text("a\x01\x1f").encode(),
    "same field twice": with_field("model", f'"{MODEL}"').encode(),
    "same field a thousand times": (json.dumps(PLAIN)[:-1] + ', "seed": 1' * 1000 + "}").encode(),
    "many fields": json.dumps(PLAIN | {f"x{i}": i for i in range(50_000)}).encode(),
    "many messages": json.dumps(PLAIN | {"messages": PLAIN["messages"] * 50_000}).encode(),
    "many parts": json.dumps(
        {"model": MODEL, "messages": [{"role": "user", "content": [{"type": "text", "text": "a"}] * 50_000}]}
    ).encode(),
    "many media": json.dumps(PLAIN | {"images": ["x"] * 50_000}).encode(),
    "many tags": with_text("<image>" * 100_000).encode(),
    "open tags": with_text("<img>" * 200_000).encode(),
    "tag in tag": with_text("<img><video>" * 50_000 + "</video></img>" * 50_000).encode(),
    "long word": with_text("a" * 8_000_000).encode(),
    "long model": json.dumps(PLAIN | {"model": "m" * 1_000_000}).encode(),
    "long role": json.dumps({"model": MODEL, "messages": [{"role": "r" * 1_000_000, "content": ""}]}).encode(),
    "long address": json.dumps(PLAIN | {"images": ["http://" + "a" * 1_000_000]}).encode(),
    "long base64": json.dumps(PLAIN | {"images": ["A" * 4_000_000 + "!"]}).encode(),
    "long blanks for base64": json.dumps(PLAIN | {"images": [" " * 4_000_000 + "!"]}).encode(),
    "long data uri": json.dumps(PLAIN | {"images": ["data:" + ";" * 1_000_000 + ","]}).encode(),
    "percent signs": json.dumps(PLAIN | {"images": ["data:," + "%" * 1_000_000]}).encode(),
    "half a document": json.dumps(PLAIN)[:30].encode(),
    "two documents": json.dumps(PLAIN).encode() * 2,
    "comments": b"/* */" + json.dumps(PLAIN).encode(),
    "trailing comma": json.dumps(PLAIN)[:-1].encode() + b",}",
    "form": b"model=parrot&messages=hi",
    "multipart": b"--x\r\ncontent-disposition: form-data; name=model\r\n\r\nparrot\r\n--x--",
    "xml": b"<!DOCTYPE a [<!ENTITY b SYSTEM 'file:///etc/passwd'>]><a>&b;</a>",
    "gzip": b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + bytes(100),
    "pickle": b"cos\nsystem\n(S'id'\ntR.",
    "proto": b'{"__proto__": {"a": 1}, "model": "parrot"}',
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
async def test_odd_body_is_answered(http, body):
    for path in ("/v1/chat/completions", "/v1/completions", "/v1/load_lora_adapter"):
        answer = await http.post(path, content=body, headers={"content-type": "application/json"})

        assert answer.status_code < 500
        assert answer.status_code == 200 or answer.json()["error"]["message"]
        assert len(answer.content) < 4000


@pytest.mark.parametrize("field", FIELDS)
async def test_odd_number_is_answered_in_every_field(http, field):
    for number in NUMBERS:
        answer = await http.post("/v1/chat/completions", content=with_field(field, number).encode())
        assert answer.status_code < 500, number


@pytest.mark.parametrize(
    "path",
    [
        "/v1/chat/completions/%00/events",
        "/v1/chat/completions/%ff%fe/events",
        "/v1/chat/completions/..%2f..%2fetc%2fpasswd/events",
        "/v1/chat/completions/" + "a" * 20_000 + "/events",
        "/v1/chat/completions/x/events?include_usage=maybe",
        "/v1/chat/completions/x/events?include_usage=" + "1" * 5000,
        "/v1/models/%F0%9F%92%A9",
        "/v1/models/%00",
        "/v1/models/" + "a/" * 10_000,
        "/v1//models",
        "/%2e%2e/%2e%2e/etc/passwd",
    ],
)
async def test_odd_path_is_refused(http, path):
    answer = await http.get(path, headers={"last-event-id": "9" * 500})

    assert 400 <= answer.status_code < 500
    assert answer.json()["error"]["type"] == "invalid_request_error"


async def test_random_bytes_in_good_bodies_are_answered(http, growth):
    rng, good = random.Random(3), json.dumps(PLAIN | {"temperature": 0.5, "stop": ["a"], "seed": 7}).encode()

    for _ in range(300):
        body = bytearray(good)
        for _ in range(rng.choice((1, 2, 8))):
            body[rng.randrange(len(body))] = rng.randrange(256)
        answer = await http.post("/v1/chat/completions", content=bytes(body))
        assert answer.status_code < 500, bytes(body)

    assert growth() < MAX_GROWTH_BYTES


async def test_damaged_media_pass_the_gateway_as_bytes(http, growth):
    """It looks into none of them; the worker's decoder does."""
    for _, name, content in corpus(60, seed=1):
        address = "data:;base64," + base64.b64encode(content).decode()
        answer = await http.post("/v1/chat/completions", json=PLAIN | {"images": [address]})
        assert answer.status_code == (200 if content else 400), name

    assert growth() < MAX_GROWTH_BYTES


async def test_gateway_keeps_its_size_over_many_large_bodies(http, growth):
    bodies = [BODIES[name] for name in ("long word", "many parts", "long base64", "deep lists", "many fields")]
    for body in bodies * 2:
        await http.post("/v1/chat/completions", content=body)
    settled = growth()

    for body in bodies * 4:
        await http.post("/v1/chat/completions", content=body)

    assert growth() - settled < MAX_GROWTH_BYTES
    assert (await http.get("/health/live")).status_code == 200
