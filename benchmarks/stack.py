"""Baton's processes on a Redis of their own, for as long as a measurement takes, and the load on a server."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, Self

import httpx2
import msgspec
import psutil
import redis

from baton.bench.report import Report
from baton.embedded import EmbeddedRedis, free_port
from shared import keys, wire
from shared.fleet import WorkerState

START_TIMEOUT_S = 180.0
QUIET = ("--log_level", "warning")


class Stack:
    """Gateways and workers that share one Redis; a context manager ends them all."""

    def __init__(self) -> None:
        self._open = ExitStack()
        self.server = self._open.enter_context(EmbeddedRedis())
        self.redis = self._open.enter_context(redis.Redis.from_url(self.server.url))
        self._num_workers = 0

    def gateway(self, *options: str, core: int | None = None) -> tuple[str, subprocess.Popen[bytes]]:
        """Start a gateway; return its /v1 and its process once it listens."""
        port = free_port()
        process = self._start("api", "--port", str(port), *options, core=core)
        url = f"http://127.0.0.1:{port}"
        wait(lambda: answers(f"{url}/health/live"), process)
        return f"{url}/v1", process

    def workers(self, number: int, *options: str, core: int | None = None) -> list[subprocess.Popen[bytes]]:
        """Start workers; return them once they serve."""
        started = [self._start("worker", *options, core=core) for _ in range(number)]
        self._num_workers += number
        wait(lambda: self._num_ready() == self._num_workers, *started)
        return started

    def _start(self, module: str, *options: str, core: int | None) -> subprocess.Popen[bytes]:
        variables = os.environ | {"BATON_REDIS_URL": self.server.url, "OMP_NUM_THREADS": "1"}
        return self._open.enter_context(running([sys.executable, "-m", module, *options, *QUIET], variables, core))

    def _num_ready(self) -> int:
        names = self.redis.zrange(keys.WORKERS, 0, -1)
        heartbeats = [self.redis.get(keys.worker(name.decode())) for name in names]
        return sum(wire.decode_worker(beat).state is WorkerState.READY for beat in heartbeats if beat)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self._open.close()


@contextmanager
def running(
    command: list[str], variables: Mapping[str, str], core: int | None = None, **more: Any
) -> Iterator[subprocess.Popen[bytes]]:
    """Run one process, if wanted on one core; it is killed at the end."""
    pin = None if core is None else lambda: os.sched_setaffinity(0, {core})
    process = subprocess.Popen(command, env=variables, preexec_fn=pin, **more)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def wait(is_so: Callable[[], bool], *processes: subprocess.Popen[bytes]) -> None:
    """Wait until something is so; raise RuntimeError if one of the processes ends meanwhile or it takes too long."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while not is_so():
        if any(process.poll() is not None for process in processes):
            raise RuntimeError("a process ended before it was ready")
        if time.monotonic() > deadline:
            raise RuntimeError(f"not ready within {START_TIMEOUT_S:g} s")
        time.sleep(0.1)


def processor_s(process: subprocess.Popen[bytes]) -> float:
    """Return the processor time that a process and its children have taken so far."""
    parent = psutil.Process(process.pid)
    times = [each.cpu_times() for each in (parent, *parent.children(recursive=True))]
    return sum(time.user + time.system for time in times)


def answers(url: str) -> bool:
    """Whether a GET is answered with 200."""
    try:
        return httpx2.get(url, trust_env=False).is_success
    except httpx2.TransportError:
        return False


def bench(url: str, *options: str) -> Report:
    """Load a server with `baton bench`, in a process of its own."""
    command = [sys.executable, "-m", "baton", "bench", f"--base_url={url}", "--json=-", *options]
    ran = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    return msgspec.json.decode(ran.stdout, type=Report)
