"""How throughput, memory and Redis grow with workers, gateways and open streams, on the fake model.

Run: python -m benchmarks.growth
"""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psutil

from benchmarks.page import heading, table
from benchmarks.stack import Stack
from benchmarks.streams import MAX_TOKENS, Streams, open_streams

MEASURED_S = 8.0
SETTLE_S = 2.0
STREAMS_PER_WORKER, ITL_MS = 50, 50
MANY_STREAMS, SLOW_ITL_MS = (10, 100, 1000), 200
NUM_SLOW_WORKERS = 4


@dataclass(frozen=True, slots=True)
class Figures:
    """What one set of processes showed under one number of streams."""

    num_running: int
    tokens_per_s: float
    gateway_bytes: int
    worker_bytes: int
    commands_per_token: float
    redis_bytes_per_token: float


async def measure(stack: Stack, urls: list[str], pids: tuple[list[int], list[int]], num_streams: int) -> Figures:
    """Open the streams, let things settle, and measure."""
    async with open_streams(urls, num_streams) as streams:
        await asyncio.sleep(SETTLE_S)
        return await _figures(stack, streams, pids)


async def _figures(stack: Stack, streams: Streams, pids: tuple[list[int], list[int]]) -> Figures:
    before, num_before = _redis(stack), streams.num_chunks
    rate = await streams.rate(MEASURED_S)
    after, num_tokens = _redis(stack), streams.num_chunks - num_before
    commands, transferred = (later - earlier for later, earlier in zip(after, before, strict=True))
    gateways, workers = (sum(psutil.Process(pid).memory_info().rss for pid in group) for group in pids)
    return Figures(streams.num_running, rate, gateways, workers, commands / num_tokens, transferred / num_tokens)


def _redis(stack: Stack) -> tuple[int, int]:
    """Return commands, those inside scripts among them, and bytes in and out, since the start."""
    stats: dict[str, Any] = stack.redis.info("stats")
    return stats["total_commands_processed"], stats["total_net_input_bytes"] + stats["total_net_output_bytes"]


def run(num_workers: int, num_gateways: int, loads: tuple[int, ...], itl_ms: int) -> Iterator[Figures]:
    """Start the processes and measure them under each number of streams."""
    with Stack() as stack:
        gateways = [stack.gateway() for _ in range(num_gateways)]
        slots = -(-max(loads) // num_workers)
        dials = (f"--fake_itl_ms={itl_ms}", f"--max_num_seqs={slots}", f"--max_model_len={2 * MAX_TOKENS}")
        workers = stack.workers(num_workers, "--model_type=fake", *dials)
        pids = ([process.pid for _, process in gateways], [process.pid for process in workers])
        for num_streams in loads:
            yield asyncio.run(measure(stack, [url for url, _ in gateways], pids, num_streams))


def by_workers() -> Iterator[tuple[object, ...]]:
    """Each worker has its streams, and each token takes its time: what one more worker adds is what it could do."""
    alone = None
    for num_workers, num_gateways in ((1, 1), (2, 1), (3, 1), (4, 1), (4, 2)):
        (figures,) = run(num_workers, num_gateways, (num_workers * STREAMS_PER_WORKER,), ITL_MS)
        per_worker = figures.tokens_per_s / num_workers
        alone = alone or per_worker
        rates = (f"{figures.tokens_per_s:,.0f}", f"{per_worker:,.0f}", f"{per_worker / alone:.0%}")
        yield num_workers, num_gateways, figures.num_running, *rates, *_redis_cells(figures)


def by_streams() -> Iterator[tuple[object, ...]]:
    """The same processes under more and more streams."""
    first = None
    for figures in run(NUM_SLOW_WORKERS, 1, MANY_STREAMS, SLOW_ITL_MS):
        first = first or figures
        more = figures.num_running - first.num_running
        memory = [
            f"{(later - earlier) / more / 1024:.1f} KiB" if more else ""
            for later, earlier in (
                (figures.gateway_bytes, first.gateway_bytes),
                (figures.worker_bytes, first.worker_bytes),
            )
        ]
        yield figures.num_running, f"{figures.tokens_per_s:,.0f}", *memory, *_redis_cells(figures)


def _redis_cells(figures: Figures) -> tuple[str, str]:
    return f"{figures.commands_per_token:.2f}", f"{figures.redis_bytes_per_token:,.0f}"


def main() -> None:
    """Print the tables."""
    heading("python -m benchmarks.growth")
    redis = ("Redis commands / token", "bytes / token")
    rates = ("open streams", "tokens/s", "per worker", "of one alone")
    table(("workers", "gateways", *rates, *redis), by_workers())
    memory = ("gateway, per stream more", "workers, per stream more")
    table((f"open streams on {NUM_SLOW_WORKERS} workers", "tokens/s", *memory, *redis), by_streams())


if __name__ == "__main__":
    main()
