"""Which GPU this worker may use: pinned from outside, or leased in Redis before torch looks for one.

It asks the driver's own tool, and knows nothing of torch or models.
"""

import asyncio
import logging
import os
import shutil
import socket
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from redis.asyncio import Redis
from redis.exceptions import RedisError

from shared import keys

logger = logging.getLogger(__name__)

VISIBLE_DEVICES = "CUDA_VISIBLE_DEVICES"
DEVICE_ORDER = "CUDA_DEVICE_ORDER"
PCI_ORDER = "PCI_BUS_ID"
"""The order in which the driver's tool counts; CUDA's own begins with the fastest."""
TTL_S = 15.0
"""A worker silent for this long gives its GPU up."""
LISTING_TIMEOUT_S = 30.0
RETRY_S = 0.5
REMINDER_S = 10.0

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_HOLD = """
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""
_RELEASE = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"


class GpusTaken(RuntimeError):
    """Every GPU of this machine is leased by another worker."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU as the driver lists it."""

    index: str
    """Its place in PCI order, as far as this container sees."""
    uuid: str
    """Its name in leases: containers that see different GPUs count from 0 each."""


async def lease_gpu(redis: Redis, worker_id: str, ttl_s: float, wait_s: float = 60.0) -> str | None:
    """Lease a free GPU of this machine and make it the only visible one; return the name of the lease.

    None where CUDA_VISIBLE_DEVICES is set already, or where no GPU is. Raises GpusTaken after `wait_s`.
    """
    if VISIBLE_DEVICES in os.environ:
        return None
    gpus = await asyncio.to_thread(list_gpus)
    if not gpus:
        return None
    gpu = await _wait_for_free(redis, gpus, worker_id, ttl_s, wait_s)
    os.environ[DEVICE_ORDER] = PCI_ORDER
    os.environ[VISIBLE_DEVICES] = gpu.index
    logger.info("leased GPU %s of %d", gpu.index, len(gpus))
    return gpu.uuid


@asynccontextmanager
async def hold_gpu(redis: Redis, worker_id: str) -> AsyncIterator[None]:
    """Lease a GPU for as long as the context lasts, if this machine has any to lease."""
    gpu = await lease_gpu(redis, worker_id, TTL_S)
    if gpu is None:
        yield
        return
    renewing = asyncio.create_task(_renew_for_ever(redis, gpu, worker_id))
    try:
        yield
    finally:
        renewing.cancel()
        await release_gpu(redis, gpu, worker_id)


async def renew_gpu(redis: Redis, gpu: str, worker_id: str, ttl_s: float) -> bool:
    """Hold the lease for another `ttl_s`; False if another worker has it by now."""
    held = await redis.register_script(_HOLD)(keys=[keys.gpu(host_id(), gpu)], args=[worker_id, round(ttl_s * 1000)])
    return bool(held)


async def release_gpu(redis: Redis, gpu: str, worker_id: str) -> None:
    """Give the GPU back, if it is still ours."""
    await redis.register_script(_RELEASE)(keys=[keys.gpu(host_id(), gpu)], args=[worker_id])


def list_gpus() -> list[Gpu]:
    """Return this machine's GPUs, without importing torch."""
    if (executable := shutil.which("nvidia-smi")) is None:
        return []
    command = [executable, "--query-gpu=index,uuid", "--format=csv,noheader"]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, timeout=LISTING_TIMEOUT_S, check=True)
    except (subprocess.SubprocessError, OSError) as error:
        logger.warning("nvidia-smi does not list the GPUs, so none is used: %s", error)
        return []
    rows = (line.split(",") for line in listed.stdout.splitlines() if "," in line)
    return [Gpu(index.strip(), uuid.strip()) for index, uuid in rows]


def host_id() -> str:
    """Name this machine: the same in all its containers, another one on every other machine."""
    return _BOOT_ID.read_text().strip() if _BOOT_ID.exists() else socket.gethostname()


async def _renew_for_ever(redis: Redis, gpu: str, worker_id: str) -> None:
    while True:
        await asyncio.sleep(TTL_S / 3)
        try:
            if not await renew_gpu(redis, gpu, worker_id, TTL_S):
                logger.error("another worker leased GPU %s while this one was silent; both use it now", gpu)
        except RedisError as error:
            logger.warning("renewing the GPU's lease waits for Redis: %s", error)


async def _wait_for_free(redis: Redis, gpus: list[Gpu], worker_id: str, ttl_s: float, wait_s: float) -> Gpu:
    deadline = time.monotonic() + wait_s
    reminder = 0.0
    while True:
        for gpu in gpus:
            if await renew_gpu(redis, gpu.uuid, worker_id, ttl_s):
                return gpu
        if time.monotonic() > deadline:
            raise GpusTaken(f"all {len(gpus)} GPUs of this machine are leased by other workers")
        if time.monotonic() > reminder:
            logger.info("all %d GPUs are leased by other workers; waiting for one", len(gpus))
            reminder = time.monotonic() + REMINDER_S
        await asyncio.sleep(RETRY_S)
