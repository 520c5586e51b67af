"""A minute of ten times more requests than one worker can serve: latency of the accepted, speed of the refusals.

Run: python -m benchmarks.overload [seconds]
"""

import asyncio
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx2

from baton.embedded import EmbeddedRedis, free_port

DURATION_S = 60.0
SLOTS, ROOM, ITL_MS, NUM_TOKENS = 16, 32, 20, 50
CAPACITY_PER_S = SLOTS / (NUM_TOKENS * ITL_MS / 1000)
BODY = {
    "model": "fake",
    "messages": [{"role": "user", "content": "the quick brown fox"}],
    "max_tokens": NUM_TOKENS,
}
HEADS = f"{'p50 ms':>10}{'p99 ms':>10}"


@dataclass
class Outcome:
    """What one load met."""

    accepted_s: list[float] = field(default_factory=list)
    refused_s: list[float] = field(default_factory=list)
    others: list[str] = field(default_factory=list)


@contextmanager
def running(module: str, *options: str, **environment: str) -> Iterator[None]:
    """One process."""
    process = subprocess.Popen([sys.executable, "-m", module, *options], env=os.environ | environment)
    try:
        yield
    finally:
        process.terminate()
        process.wait()


async def ask(http: httpx2.AsyncClient, outcome: Outcome) -> None:
    """Ask once, and note how long the answer took."""
    began_s = time.perf_counter()
    try:
        answer = await http.post("/v1/chat/completions", json=BODY)
    except httpx2.TransportError as error:
        outcome.others.append(repr(error))
        return
    took_s = time.perf_counter() - began_s
    if answer.status_code == 200:
        outcome.accepted_s.append(took_s)
    elif answer.status_code == 429:
        outcome.refused_s.append(took_s)
    else:
        outcome.others.append(str(answer.status_code))


async def load(http: httpx2.AsyncClient, per_s: float, duration_s: float) -> Outcome:
    """Requests that come whether or not others are answered, at random moments."""
    outcome, draw = Outcome(), random.Random(0)
    end_s = time.perf_counter() + duration_s
    async with asyncio.TaskGroup() as group:
        while time.perf_counter() < end_s:
            group.create_task(ask(http, outcome))
            await asyncio.sleep(draw.expovariate(per_s))
    return outcome


def percentiles(times_s: list[float]) -> str:
    """p50 and p99 in ms."""
    if len(times_s) < 2:
        return f"{'-':>10}{'-':>10}"
    cuts = statistics.quantiles(times_s, n=100)
    return f"{cuts[49] * 1000:10.1f}{cuts[98] * 1000:10.1f}"


async def main(duration_s: float) -> None:
    """Print the table."""
    port = free_port()
    worker = ("--model_type=fake", f"--max_num_seqs={SLOTS}", f"--fake_itl_ms={ITL_MS}", "--log_level=warning")
    gateway = (f"--port={port}", f"--max_queue_len={ROOM}", "--log_level=warning")
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=200)
    with EmbeddedRedis() as server:
        url = {"BATON_REDIS_URL": server.url}
        with running("worker", *worker, **url), running("api", *gateway, **url):
            async with httpx2.AsyncClient(
                base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=60, limits=limits
            ) as http:
                await ready(http)
                print(f"capacity {CAPACITY_PER_S:.0f} requests/s, {ROOM} may wait; {duration_s:g} s each")
                print(f"{'load':>6}{'accepted':>10}{HEADS}{'refused':>10}{HEADS}  others")
                for times in (0.8, 10):
                    outcome = await load(http, times * CAPACITY_PER_S, duration_s)
                    print(
                        f"{times:5g}x{len(outcome.accepted_s):10}{percentiles(outcome.accepted_s)}"
                        f"{len(outcome.refused_s):10}{percentiles(outcome.refused_s)}  {outcome.others[:3]}"
                    )


async def ready(http: httpx2.AsyncClient) -> None:
    """Wait until the gateway has a worker."""
    while True:
        try:
            if (await http.get("/health/ready")).is_success:
                return
        except httpx2.TransportError:
            pass
        await asyncio.sleep(0.1)


if __name__ == "__main__":
    asyncio.run(main(float(sys.argv[1]) if len(sys.argv) > 1 else DURATION_S))
