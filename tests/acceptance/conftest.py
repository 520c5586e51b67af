"""The whole walk as its users meet it: Redis, gateway and workers as processes, and the official client."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import httpx2
import pytest
from openai import OpenAI

from baton.embedded import EmbeddedRedis, free_port
from tests.cases import GOLDEN, INTERNVL2, QWEN2_AUDIO

if TYPE_CHECKING:
    from tests.acceptance.golden_walk import GoldenFleet

MODEL = "internvl2-2b"
ADAPTERS = ("adapter", "adapter_all")
START_TIMEOUT_S = 600.0


class Stack:
    """Processes that share one Redis."""

    def __init__(self, redis_url: str) -> None:
        self.redis_url = redis_url
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._processes: list[subprocess.Popen[bytes]] = []
        self._clients: list[OpenAI] = []

    def start(self, module: str, *options: str) -> subprocess.Popen[bytes]:
        return self.run([sys.executable, "-m", module, *options])

    def run(self, command: list[str]) -> subprocess.Popen[bytes]:
        """Start a process of whatever command."""
        environment = os.environ | {"BATON_REDIS_URL": self.redis_url, "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(command, env=environment)
        self._processes.append(process)
        return process

    def start_gateway(self, *options: str) -> None:
        port = ("--port", str(self.port), "--drain_notice_s", "0")
        self._gateway = self.start("api", *port, "--allow_private_media_hosts", "true", *options)
        self._wait(lambda: self._get("/health/live") is not None)

    def kill_gateway(self) -> None:
        self.end(self._gateway, signal.SIGKILL)

    def stop_gateway(self) -> None:
        self.end(self._gateway, signal.SIGTERM)

    def end(self, process: subprocess.Popen[bytes], how: signal.Signals) -> None:
        """End one process before the others."""
        process.send_signal(how)
        process.wait(30)
        self._processes.remove(process)

    def kill(self, pid: int) -> None:
        (process,) = (process for process in self._processes if process.pid == pid)
        process.kill()
        process.wait()
        self._processes.remove(process)

    def start_internvl2(self, name: str = MODEL, *options: str) -> subprocess.Popen[bytes]:
        base = ("--model_type", MODEL, "--model_id_or_path", str(INTERNVL2 / "checkpoint"))
        return self.start("worker", *base, "--served_model_name", name, *options)

    def client(self, api_key: str = "EMPTY") -> OpenAI:
        self._clients.append(OpenAI(base_url=f"{self.url}/v1", api_key=api_key, max_retries=0, timeout=300))
        return self._clients[-1]

    def wait_for_models(self, *names: str, api_key: str = "EMPTY") -> None:
        def are_served() -> bool:
            answer = self._get("/v1/models", Authorization=f"Bearer {api_key}")
            return answer is not None and {model["id"] for model in answer["data"]} >= set(names)

        self._wait(are_served)

    def _get(self, path: str, **headers: str) -> dict | None:
        try:
            return httpx2.get(self.url + path, headers=headers).raise_for_status().json()
        except httpx2.TransportError:
            return None

    def _wait(self, is_so: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not is_so():
            assert all(process.poll() is None for process in self._processes), "a process died while starting"
            assert time.monotonic() < deadline, f"not started within {START_TIMEOUT_S} s"
            time.sleep(0.1)

    def stop(self) -> None:
        """End everything in order; uvicorn ends by the signal that stopped it."""
        for client in self._clients:
            client.close()
        for process in self._processes:
            process.terminate()
        statuses = [process.wait(timeout=30) for process in self._processes]
        assert set(statuses) <= {0, -signal.SIGTERM, -signal.SIGKILL}


@pytest.fixture
def new_stack() -> Iterator[Callable[[], Stack]]:
    """Start stacks of one's own, each on a Redis of its own."""
    started: list[tuple[Stack, EmbeddedRedis]] = []

    def start() -> Stack:
        server = EmbeddedRedis()
        started.append((Stack(server.url), server))
        return started[-1][0]

    yield start
    for stack, server in started:
        stack.stop()
        server.stop()


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """One gateway, and one worker that serves the golden model with its adapters beside it."""
    with EmbeddedRedis() as server:
        stack = Stack(server.url)
        stack.start_gateway()
        stack.start_internvl2(MODEL, "--lora_modules", *(f"{name}={INTERNVL2 / name}" for name in ADAPTERS))
        stack.wait_for_models(MODEL, *ADAPTERS)
        yield stack
        stack.stop()


@pytest.fixture(scope="session")
def client(stack: Stack) -> OpenAI:
    return stack.client()


@pytest.fixture(scope="session")
def fleet() -> Iterator["GoldenFleet"]:
    """Every other golden model, on a worker of its own that starts when it is first asked for."""
    from tests.acceptance.golden_walk import GoldenFleet, serving

    with EmbeddedRedis() as server, serving(GOLDEN) as media_url:
        stack = Stack(server.url)
        try:
            stack.start_gateway("--allowed_local_media_path", str(QWEN2_AUDIO / "media"))
            yield GoldenFleet(stack, media_url)
        finally:
            stack.stop()


@pytest.fixture(scope="session")
def media_url() -> Iterator[str]:
    """The golden pictures and clips on an HTTP server of this machine."""
    served = partial(QuietFiles, directory=str(INTERNVL2 / "media"))
    with ThreadingHTTPServer(("127.0.0.1", 0), served) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class QuietFiles(SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        pass
