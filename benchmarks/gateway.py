"""Chunks per second through one gateway on one core, beside a bare server that only writes the same bytes.

Run: python -m benchmarks.gateway
"""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

import uvicorn
from redis.asyncio import Redis

from baton.embedded import EmbeddedRedis, free_port
from shared import keys, wire
from shared.fleet import WorkerState

NUM_STREAMS = 256
WARM_UP_S = 3.0
MEASURED_S = 10.0
MAX_TOKENS = 100_000
GATEWAY_CORE, OTHER_CORE = 0, 1
TICKS_PER_S = os.sysconf("SC_CLK_TCK")

BODY = json.dumps(
    {
        "model": "fake",
        "stream": True,
        "max_tokens": MAX_TOKENS,
        "messages": [{"role": "user", "content": "the quick brown fox jumps over the lazy dog"}],
    }
).encode()
REQUEST = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (len(BODY), BODY)
)

CHUNK = (
    b'id: 12\ndata: {"id":"chatcmpl-0123456789abcdef0123456789abcdef","object":"chat.completion.chunk",'
    b'"created":1790000000,"model":"fake",'
    b'"choices":[{"index":0,"delta":{"content":" quick"},"finish_reason":null}]}\n\n'
)


class Stream(asyncio.Protocol):
    """One client: counts chunks and nothing else, so that it costs little."""

    num_chunks = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask."""
        assert isinstance(transport, asyncio.Transport)
        transport.write(REQUEST)

    def data_received(self, data: bytes) -> None:
        """Count the chunks."""
        Stream.num_chunks += data.count(b"data: {")


@contextmanager
def running(core: int, module: str, *options: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """One process on one core."""
    process = subprocess.Popen(
        [sys.executable, "-m", module, *options],
        env=os.environ | environment,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def cpu_s(pid: int) -> float:
    """Processor time this process has used."""
    with open(f"/proc/{pid}/stat", encoding="ascii") as line:
        fields = line.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


async def measure(port: int, pid: int) -> tuple[float, float]:
    """Return chunks/s, and the share of its core that the server used."""
    loop = asyncio.get_running_loop()
    connections = [await loop.create_connection(Stream, "127.0.0.1", port) for _ in range(NUM_STREAMS)]
    await asyncio.sleep(WARM_UP_S)
    began_s, chunks, used_s = time.perf_counter(), Stream.num_chunks, cpu_s(pid)
    await asyncio.sleep(MEASURED_S)
    took_s = time.perf_counter() - began_s
    rate, share = (Stream.num_chunks - chunks) / took_s, (cpu_s(pid) - used_s) / took_s
    for transport, _ in connections:
        transport.close()
    await asyncio.sleep(0.5)
    return rate, share


async def serving(port: int) -> None:
    """Wait until somebody listens."""
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.1)
        else:
            return writer.close()


async def ready(redis: Redis) -> None:
    """Wait until the worker serves."""
    while True:
        for name in await redis.zrange(keys.WORKERS, 0, -1):
            heartbeat = await redis.get(keys.worker(name.decode()))
            if wire.decode_worker(heartbeat).state is WorkerState.READY:
                return
        await asyncio.sleep(0.1)


async def measure_gateway(itl_ms: float) -> tuple[float, float]:
    """The whole walk: worker, Redis, gateway, 256 clients."""
    port = free_port()
    with EmbeddedRedis() as server:
        os.sched_setaffinity(server.pid, {OTHER_CORE})
        worker = ("--model_type=fake", f"--max_num_seqs={NUM_STREAMS}", f"--fake_itl_ms={itl_ms}")
        limits = ("--log_level=warning",)
        with (
            running(
                OTHER_CORE, "worker", *worker, f"--max_model_len={2 * MAX_TOKENS}", *limits, BATON_REDIS_URL=server.url
            ),
            running(GATEWAY_CORE, "api", f"--port={port}", *limits, BATON_REDIS_URL=server.url) as gateway,
        ):
            async with Redis.from_url(server.url) as redis:
                await ready(redis)
            await serving(port)
            return await measure(port, gateway.pid)


async def measure_bare() -> tuple[float, float]:
    """The limit: the same server software, writing the same chunks one by one from memory."""
    port = free_port()
    with running(GATEWAY_CORE, "benchmarks.gateway", str(port)) as server:
        await serving(port)
        return await measure(port, server.pid)


async def write_for_ever(
    scope: MutableMapping[str, Any],
    receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
    send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
) -> None:
    """ASGI application: the same bytes as fast as the server takes them."""
    if scope["type"] != "http":
        return
    await receive()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
    while True:
        await send({"type": "http.response.body", "body": CHUNK, "more_body": True})
        await asyncio.sleep(0)


async def main() -> None:
    """Print the table."""
    os.sched_setaffinity(0, {OTHER_CORE})
    print(f"{NUM_STREAMS} streams, the server on one core; the rest shares another one")
    print(f"{'':34}{'chunks/s':>10}{'core used':>11}{'µs/chunk':>10}")
    rows = {"bare uvicorn, a write per chunk": measure_bare()}
    for itl_ms in (20, 10, 1):
        rows[f"baton, fake model, {itl_ms} ms a step"] = measure_gateway(itl_ms)
    for name, measuring in rows.items():
        rate, share = await measuring
        print(f"{name:34}{rate:10.0f}{share:11.0%}{share / rate * 1e6:10.1f}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        limits = {"loop": "uvloop", "http": "httptools", "log_level": "warning", "lifespan": "off"}
        uvicorn.run(write_for_ever, port=int(sys.argv[1]), **limits)
    else:
        asyncio.run(main())
