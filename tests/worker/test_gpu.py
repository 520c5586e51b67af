import asyncio
import os
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from redis.asyncio import Redis

from baton.embedded import EmbeddedRedis
from shared import keys
from worker.gpu import GpusTaken, hold_gpu, host_id, lease_gpu, list_gpus, release_gpu, renew_gpu

WORKER = """
import asyncio, os, sys
from redis.asyncio import Redis
from worker.gpu import lease_gpu, release_gpu

async def main(url, name):
    redis = Redis.from_url(url)
    gpu = await lease_gpu(redis, name, ttl_s=30)
    print(os.environ.get("CUDA_VISIBLE_DEVICES"), "torch" in sys.modules, flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await release_gpu(redis, gpu, name)
    await redis.aclose()

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.fixture
def two_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    install_smi(tmp_path, monkeypatch, 'echo "0, GPU-aaaa"; echo "1, GPU-bbbb"')
    yield
    os.environ.pop("CUDA_VISIBLE_DEVICES", None)
    os.environ.pop("CUDA_DEVICE_ORDER", None)


def install_smi(directory: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> None:
    script = directory / "nvidia-smi"
    script.write_text(f"#!/bin/sh\n{body}\n")
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@asynccontextmanager
async def worker_process(server: EmbeddedRedis, name: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", WORKER, server.url, name), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        yield process
    finally:
        await process.communicate(b"")


async def first_line(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None
    return (await process.stdout.readline()).decode().strip()


@pytest.mark.usefixtures("redis", "two_gpus")
async def test_two_racing_workers_get_a_gpu_each(redis_server: EmbeddedRedis) -> None:
    async with worker_process(redis_server, "a") as first, worker_process(redis_server, "b") as second:
        lines = await asyncio.gather(first_line(first), first_line(second))

    assert sorted(lines) == ["0 False", "1 False"]


@pytest.mark.usefixtures("two_gpus")
async def test_worker_waits_for_a_gpu_that_another_gives_back(redis: Redis) -> None:
    first, second = keys.gpu(host_id(), "GPU-aaaa"), keys.gpu(host_id(), "GPU-bbbb")
    await redis.mset({first: "other", second: "another"})
    waiting = asyncio.create_task(lease_gpu(redis, "late", ttl_s=30))
    await asyncio.sleep(0)
    await release_gpu(redis, "GPU-bbbb", "another")

    assert await waiting == "GPU-bbbb"
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "1"
    assert os.environ["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    assert await redis.mget(first, second) == [b"other", b"late"]


@pytest.mark.usefixtures("two_gpus")
async def test_worker_gives_up_when_every_gpu_stays_leased(redis: Redis) -> None:
    await redis.mset({keys.gpu(host_id(), gpu.uuid): "other" for gpu in list_gpus()})

    with pytest.raises(GpusTaken, match="all 2 GPUs of this machine"):
        await lease_gpu(redis, "late", ttl_s=30, wait_s=0)

    assert "CUDA_VISIBLE_DEVICES" not in os.environ


@pytest.mark.usefixtures("two_gpus")
async def test_gpu_is_held_as_long_as_the_worker_runs(redis: Redis) -> None:
    async with hold_gpu(redis, "worker"):
        held = await redis.get(keys.gpu(host_id(), "GPU-aaaa"))

    assert held == b"worker"
    assert await redis.keys("gpu:*") == []


async def test_lease_ends_by_itself_unless_it_is_renewed(redis: Redis) -> None:
    assert await renew_gpu(redis, "GPU-aaaa", "holder", ttl_s=30)
    assert not await renew_gpu(redis, "GPU-aaaa", "other", ttl_s=30)
    assert 29_000 < await redis.pttl(keys.gpu(host_id(), "GPU-aaaa")) <= 30_000
    await release_gpu(redis, "GPU-aaaa", "other")
    assert await redis.get(keys.gpu(host_id(), "GPU-aaaa")) == b"holder"

    await redis.flushall()  # a Redis that lost everything

    assert await renew_gpu(redis, "GPU-aaaa", "holder", ttl_s=30)


@pytest.mark.usefixtures("two_gpus")
async def test_pinned_worker_leases_nothing(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")

    assert await lease_gpu(redis, "pinned", ttl_s=30) is None
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "1"
    assert await redis.keys() == []


async def test_broken_driver_means_no_gpu(redis: Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_smi(tmp_path, monkeypatch, 'echo "NVIDIA-SMI has failed"; exit 9')

    assert await lease_gpu(redis, "worker", ttl_s=30) is None
    assert "CUDA_VISIBLE_DEVICES" not in os.environ


async def test_machine_without_the_driver_has_no_gpu(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")

    assert await lease_gpu(redis, "worker", ttl_s=30) is None
