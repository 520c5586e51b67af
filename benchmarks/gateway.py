"""Chunks per second through one gateway on one core, beside a bare server that only writes the same bytes.

Run: python -m benchmarks.gateway
"""

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from typing import Any

import uvicorn

from baton.embedded import free_port
from benchmarks.page import heading, table
from benchmarks.stack import Stack, answers, running, wait
from benchmarks.streams import MAX_TOKENS, open_streams

NUM_STREAMS = 256
WARM_UP_S = 3.0
MEASURED_S = 10.0
GATEWAY_CORE, OTHER_CORE = 0, 1
TICKS_PER_S = os.sysconf("SC_CLK_TCK")

CHUNK = (
    b'id: 12\ndata: {"id":"chatcmpl-0123456789abcdef0123456789abcdef","object":"chat.completion.chunk",'
    b'"created":1790000000,"model":"fake",'
    b'"choices":[{"index":0,"delta":{"content":" quick"},"finish_reason":null}]}\n\n'
)


def cpu_s(pid: int) -> float:
    """Processor time this process has used."""
    with open(f"/proc/{pid}/stat", encoding="ascii") as line:
        fields = line.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


async def measure(url: str, pid: int) -> tuple[float, float]:
    """Return chunks/s, and the share of its core that the server used."""
    async with open_streams([url], NUM_STREAMS) as streams:
        await asyncio.sleep(WARM_UP_S)
        used_s = cpu_s(pid)
        rate = await streams.rate(MEASURED_S)
        return rate, (cpu_s(pid) - used_s) / MEASURED_S


def measure_gateway(itl_ms: float) -> tuple[float, float]:
    """The whole walk: worker, Redis, gateway, 256 clients."""
    with Stack() as stack:
        os.sched_setaffinity(stack.server.pid, {OTHER_CORE})
        url, gateway = stack.gateway(core=GATEWAY_CORE)
        dials = (f"--fake_itl_ms={itl_ms}", f"--max_num_seqs={NUM_STREAMS}", f"--max_model_len={2 * MAX_TOKENS}")
        stack.workers(1, "--model_type=fake", *dials, core=OTHER_CORE)
        return asyncio.run(measure(url, gateway.pid))


def measure_bare() -> tuple[float, float]:
    """The limit: the same server software, writing the same chunks one by one from memory."""
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.gateway", str(port)]
    with running(command, os.environ, GATEWAY_CORE) as server:
        wait(lambda: answers(f"http://127.0.0.1:{port}"), server)
        return asyncio.run(measure(f"http://127.0.0.1:{port}", server.pid))


async def write_for_ever(
    scope: MutableMapping[str, Any],
    receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
    send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
) -> None:
    """ASGI application: the same bytes as fast as the server takes them, to whoever posts."""
    await receive()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
    while scope["method"] == "POST":
        await send({"type": "http.response.body", "body": CHUNK, "more_body": True})
        await asyncio.sleep(0)
    await send({"type": "http.response.body"})


def rows() -> Iterator[tuple[str, ...]]:
    yield _cells("bare uvicorn, one write per chunk from memory (the limit)", *measure_bare())
    for itl_ms in (20, 10, 1):
        yield _cells(f"Baton, {itl_ms} ms a step", *measure_gateway(itl_ms))


def _cells(name: str, rate: float, share: float) -> tuple[str, ...]:
    return name, f"{rate:,.0f}", f"{share:.0%}", f"{share / rate * 1e6:.0f} µs"


def main() -> None:
    """Print the table."""
    os.sched_setaffinity(0, {OTHER_CORE})
    heading("python -m benchmarks.gateway")
    table([f"{NUM_STREAMS} open streams", "chunks/s", "of the gateway's core", "CPU per chunk"], rows())


if __name__ == "__main__":
    if len(sys.argv) > 1:
        limits = {"loop": "uvloop", "http": "httptools", "log_level": "warning", "lifespan": "off"}
        uvicorn.run(write_for_ever, port=int(sys.argv[1]), **limits)
    else:
        main()
