"""Clients whose gateway dies, and clients that leave, read slowly, or not at all."""

import asyncio
import json
import random
import signal
import socket
import struct
from dataclasses import replace
from threading import Event

import psutil
import pytest
from redis.asyncio import Redis

from baton import InferClient, XRequestConfig, inference_client
from baton.embedded import EmbeddedRedis
from shared import keys
from tests.faults.mix import Question, mixed_load
from tests.faults.stage import Stage

SEND_TIMEOUT_S = 1.0
WORD = "x" * 20_000
"""What the loud model says a hundred times a second: more than any socket's buffers hold."""
NUM_WORDS = 500
MANY_WORDS = 2000
UNHEARD_WORDS = 8000
"""More than are said before a test gives up waiting."""
STREAMS = [replace(question, is_streamed=True) for question in mixed_load()]
RESET = struct.pack("ii", 1, 0)
"""SO_LINGER that ends a connection with a reset instead of a farewell."""


@pytest.fixture(scope="module")
async def stage():
    options = (f"--send_timeout_s={SEND_TIMEOUT_S}", "--drain_timeout_s=0")
    with EmbeddedRedis() as redis:
        async with Stage.open(redis.url, num_gateways=2, gateway_options=options) as opened:
            loud = ("--served_model_name=loud", "--fake_itl_ms=10", "--max_num_seqs=8")
            opened.workers.append(opened.start("worker", "--model_type=fake", *loud))
            await opened.settle()
            yield opened


@pytest.fixture
async def redis(stage):
    async with Redis.from_url(stage.redis_url) as client:
        yield client


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM], ids=["is killed", "stops without a grace time"])
async def test_stream_whose_gateway(stage, num_rounds, figures, signum):
    """Goes on at another one; the client sees to that."""

    async def fault(stage, rng):
        port = next(iter(stage.gateways))
        gateway = stage.gateways.pop(port)
        gateway.send_signal(signum)
        await asyncio.to_thread(gateway.wait, 20)
        stage.start_gateway(port)

    for number in range(num_rounds):
        client = InferClient(base_url=stage.urls)
        await stage.play(fault, random.Random(f"gateway {number}"), STREAMS, client)

    figures.add(f"a gateway gets {signum.name}", num_rounds, stage)


async def test_stream_waits_for_its_only_gateway_to_come_back(stage):
    question = Question("äöü 日本", is_streamed=True, max_tokens=150)
    port, url = next(iter(stage.gateways)), stage.urls[0]

    def listen():
        config = XRequestConfig(max_tokens=150, temperature=0, stream=True)
        text = ""
        for chunk in inference_client(
            "fake", question.alphabet, request_config=config, url=[url], is_chat=True, is_multimodal=False
        ):
            text += chunk.choices[0].delta.content
            if len(text) == 20:
                stage.gateways[port].kill()
                stage.gateways[port].wait()
                stage.start_gateway(port)
        return text, chunk.usage.completion_tokens

    assert await asyncio.to_thread(listen) == (question.expected.text, 150)
    await stage.settle()


@pytest.mark.parametrize("is_streamed", [True, False], ids=["streamed", "plain"])
@pytest.mark.parametrize("is_polite", [True, False], ids=["farewell", "reset"])
async def test_client_that_leaves_stops_its_job(stage, redis, is_streamed, is_polite):
    client = connect(stage, is_streamed=is_streamed, num_words=UNHEARD_WORDS)
    await until(lambda: redis.zcard(keys.inflight("loud")), 1)

    if not is_polite:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    client.close()

    await until(lambda: redis.zcard(keys.inflight("loud")), 0)
    await until(lambda: redis.keys("arq:*"), [])


async def test_client_that_reads_slowly_gets_everything_in_fewer_pieces(stage, redis):
    gateway = psutil.Process(stage.gateways[next(iter(stage.gateways))].pid)
    before_bytes = gateway.memory_info().rss
    with connect(stage, is_streamed=True) as client:
        has_ended = Event()
        reading = asyncio.create_task(asyncio.to_thread(read_slowly, client, has_ended))
        await until(lambda: redis.zcard(keys.inflight("loud")), 1)
        await until(lambda: redis.zcard(keys.inflight("loud")), 0)
        has_ended.set()
        heard = await reading

    chunks = [json.loads(line[6:]) for line in heard.splitlines() if line.startswith('data: {"id"')]
    texts = [choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"]]
    assert "".join(texts) == " ".join([WORD] * NUM_WORDS)
    assert len([text for text in texts if text]) < NUM_WORDS
    assert gateway.memory_info().rss - before_bytes < 5 * len(WORD) * NUM_WORDS


async def test_client_that_never_reads_is_let_go(stage, redis):
    with connect(stage, is_streamed=True, num_words=MANY_WORDS) as client:
        address = client.getsockname()
        await until(lambda: redis.zcard(keys.inflight("loud")), 1)
        job = (await redis.zrange(keys.inflight("loud"), 0, 0))[0].decode()

        await until(lambda: redis.zcard(keys.inflight("loud")), 0)

        gateway = psutil.Process(stage.gateways[next(iter(stage.gateways))].pid)
        assert [c for c in gateway.net_connections() if c.raddr == address] == []
        assert await redis.xlen(keys.log(job)) < MANY_WORDS


def connect(stage: Stage, *, is_streamed: bool, num_words: int = NUM_WORDS) -> socket.socket:
    """Ask the loud model, over a socket that takes little in advance."""
    body = {"model": "loud", "messages": [{"role": "user", "content": WORD}], "max_tokens": num_words}
    content = json.dumps(body | {"stream": is_streamed}).encode()
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect(("127.0.0.1", next(iter(stage.gateways))))
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: here\r\nContent-Length: {len(content)}\r\n"
    client.sendall(head.encode() + b"Connection: close\r\n\r\n" + content)
    return client


def read_slowly(client: socket.socket, has_ended: Event) -> str:
    """Return the body of a chunked answer, read drop by drop until all of it was said."""
    received = b""
    while piece := client.recv(2**13):
        received += piece
        has_ended.wait(0.05)
    _, _, rest = received.partition(b"\r\n\r\n")
    body = b""
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        body += rest[: int(size, 16)]
        rest = rest[int(size, 16) + 2 :]
    return body.decode()


async def until(measure, value, timeout_s: float = 30.0) -> None:
    async with asyncio.timeout(timeout_s):
        while await measure() != value:
            await asyncio.sleep(0.02)
