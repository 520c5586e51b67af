"""`baton doctor`, with things that are really broken."""

import asyncio
import json
import os
import re
import socket
import subprocess
import sys
import time
from functools import partial

import pytest
from redis import Redis

from baton.embedded import EmbeddedRedis, free_port
from shared import keys, wire
from shared.fleet import WorkerState
from tests.api.standin import StandIn
from tests.baton.deployed import without_settings

NO_TORCH = """
import sys
from importlib.machinery import PathFinder

class Hiding(PathFinder):
    @classmethod
    def find_spec(cls, name, *arguments):
        return None if name.partition(".")[0] == "torch" else PathFinder.find_spec(name, *arguments)

sys.meta_path[sys.meta_path.index(PathFinder)] = Hiding
"""


@pytest.fixture(scope="module")
def examine(tmp_path_factory):
    """Examine as on a machine without torch, unless another PYTHONPATH is given."""
    directory = tmp_path_factory.mktemp("no_torch")
    (directory / "sitecustomize.py").write_text(NO_TORCH)
    return partial(run_doctor, PYTHONPATH=os.pathsep.join([str(directory), os.getcwd()]))


async def run_doctor(redis_url: str, *arguments: str, expected: int, **environment: str) -> dict[tuple[str, str], dict]:
    """Findings by area and name."""
    command = [sys.executable, "-P", "-m", "baton", "doctor", "--json", "--redis_url", redis_url, *arguments]
    process = await asyncio.create_subprocess_exec(
        *command, env=without_settings() | environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    stdout, stderr = await process.communicate()
    assert process.returncode == expected, stderr.decode()
    report = json.loads(stdout)
    assert (report["worst"] == "red") == (expected == 1)
    return {(finding["area"], finding["name"]): finding for finding in report["findings"]}


@pytest.fixture
def own_redis():
    with EmbeddedRedis() as server, Redis.from_url(server.url) as redis:
        yield server, redis


@pytest.fixture
def port() -> str:
    return f"--port={free_port()}"


async def test_healthy_redis_is_green_and_an_idle_machine_is_not_ill(examine, own_redis, port):
    server, _ = own_redis

    found = await examine(server.url, port, expected=0)

    of_redis = {name: finding["colour"] for (area, name), finding in found.items() if area == "redis"}
    names = ("version", "eviction", "memory", "clock", "permissions", "persistence")
    assert {name: of_redis[name] for name in names} == dict.fromkeys(names, "green")
    assert found["workers", "live"]["colour"] == "yellow"
    assert found["gateway", "port"]["colour"] == "green"
    assert found["gpu", "torch"]["fact"] == "not installed"


async def test_redis_that_is_not_there_is_red(examine, port):
    found = await examine(f"redis://:hunter2@127.0.0.1:{free_port()}/0", port, expected=1)

    assert found["redis", "reachable"]["colour"] == "red"
    assert "hunter2" not in str(found)


async def test_redis_that_evicts_is_tiny_and_allows_no_scripts_is_red_three_times(examine, own_redis, port):
    server, redis = own_redis
    redis.config_set("maxmemory", 32 * 2**20)
    redis.config_set("maxmemory-policy", "allkeys-lru")
    redis.acl_setuser("limited", enabled=True, passwords=["+x"], categories=["+@all", "-@scripting"], keys=["*"])

    found = await examine(f"redis://limited:x@127.0.0.1:{server.port}/0", port, expected=1)

    red = {name for (area, name), finding in found.items() if area == "redis" and finding["colour"] == "red"}
    assert red == {"eviction", "memory", "permissions"}
    assert "noeviction" in found["redis", "eviction"]["advice"]
    assert "32 MiB" in found["redis", "memory"]["fact"]


async def test_wrong_password_is_red(examine, own_redis, port):
    server, redis = own_redis
    redis.acl_setuser("somebody", enabled=True, passwords=["+right"], categories=["+@all"])

    found = await examine(f"redis://somebody:wrong@127.0.0.1:{server.port}/0", port, expected=1)

    assert "password" in found["redis", "reachable"]["fact"]


async def test_clock_that_differs_is_red(examine, own_redis, port):
    """Between doctor and Redis stands somebody who sets its clock back by a minute."""
    server, _ = own_redis

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        behind, ahead = await asyncio.open_connection("127.0.0.1", server.port)
        await asyncio.gather(pipe(reader, ahead, lambda data: data), pipe(behind, writer, set_back))

    async with await asyncio.start_server(relay, "127.0.0.1", 0) as proxy:
        address = server.url.replace(f":{server.port}/", f":{proxy.sockets[0].getsockname()[1]}/")
        found = await examine(address, port, expected=1)

    assert found["redis", "clock"]["colour"] == "red"
    assert re.match(r"Redis is (59|60)\.\d+ s behind", found["redis", "clock"]["fact"])


async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, change) -> None:
    while data := await reader.read(65536):
        writer.write(change(data))
        await writer.drain()
    writer.close()


def set_back(data: bytes) -> bytes:
    return re.sub(rb"\*2\r\n\$10\r\n(\d{10})\r\n", lambda m: b"*2\r\n$10\r\n%d\r\n" % (int(m[1]) - 60), data)


async def test_dead_strange_and_missing_workers_are_told(examine, redis_server, redis, port):
    await StandIn(redis, "alive").beat()
    await StandIn(redis, "dead").beat(lives_s=-30)
    await StandIn(redis, "stopped").beat(WorkerState.DRAINING, lives_s=-30)
    await redis.zadd(keys.queue("dead"), {"job": 1})
    await redis.set(keys.worker("alien"), b"\xffrubbish")
    await redis.zadd(keys.WORKERS, {"alien": time.time() + 60})

    found = await examine(redis_server.url, port, expected=1)

    colours = {name: finding["colour"] for (area, name), finding in found.items() if area == "workers"}
    assert colours == {"standin-alive": "yellow", "standin-dead": "yellow", "heartbeat": "red", "queue": "red"}
    assert "baton 0" in found["workers", "standin-alive"]["fact"]
    assert wire.VERSION.hex() in found["workers", "heartbeat"]["fact"]


async def test_port_that_somebody_else_took_is_red(examine, redis_server):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        answering = asyncio.create_task(asyncio.to_thread(hang_up, taken))
        found = await examine(redis_server.url, f"--port={taken.getsockname()[1]}", expected=1)
        taken.close()
        await answering

    assert "something else" in found["gateway", "port"]["fact"]


def hang_up(taken: socket.socket) -> None:
    """Accept the look at the port and the request, and say nothing sensible to either."""
    taken.settimeout(30)
    for _ in range(2):
        connection, _ = taken.accept()
        connection.sendall(b"220 mail.example ESMTP\r\n")
        connection.close()


async def test_unwritable_cache_and_broken_torch_are_told(examine, redis_server, port, tmp_path):
    """Another package of torch's name, which can't be imported, stands before it."""
    (tmp_path / "torch.py").write_text("raise ImportError('libcudart.so.99: no such file')")
    path = os.pathsep.join([str(tmp_path), os.getcwd()])

    found = await examine(redis_server.url, port, expected=1, PYTHONPATH=path, HF_HOME="/proc/none")

    assert found["gpu", "torch"]["colour"] == "red"
    assert "libcudart" in found["gpu", "torch"]["fact"]
    assert found["disk", "Hugging Face cache"]["colour"] in {"yellow", "red"}
