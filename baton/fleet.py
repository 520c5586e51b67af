"""What this machine's workers say of themselves in their heartbeats."""

import socket
import time

from redis.asyncio import Redis

from shared import keys, wire
from shared.fleet import WorkerInfo, WorkerState


async def local_workers(redis: Redis) -> dict[int, WorkerInfo]:
    """Return the live workers of this machine by process id."""
    names = await redis.zrangebyscore(keys.WORKERS, time.time(), "+inf")
    if not names:
        return {}
    payloads = await redis.mget([keys.worker(name.decode()) for name in names])
    workers = [wire.decode_worker(payload) for payload in payloads if payload and payload[:1] == wire.VERSION]
    return {worker.pid: worker for worker in workers if worker.host == socket.gethostname()}


def progress(workers: list[WorkerInfo], num_workers: int) -> str:
    """Say in a few words how far these workers, of so many, have come."""
    loading = next((worker for worker in workers if worker.state is not WorkerState.READY), None)
    num_ready = sum(worker.state is WorkerState.READY for worker in workers)
    ready = f"{num_ready} of {num_workers} workers ready; " if num_workers > 1 else ""
    if loading is None:
        return f"{ready}starting"
    return f"{ready}loading {loading.model or 'the model'}" + (f": {loading.progress}" if loading.progress else "")
