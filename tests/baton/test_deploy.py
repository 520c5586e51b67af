import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import psutil
import pytest
from redis import Redis
from redis.exceptions import AuthenticationError

from baton.embedded import EmbeddedRedis, free_port
from shared import keys
from tests.baton.deployed import TIMEOUT_S, Deployed

API_KEY = "a-secret-that-nobody-sees"
FAKE = ("--model_type", "fake", "--port=0")


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    """A deployment that is told what to be in three ways at once, in a directory with folders named like ours."""
    directory = tmp_path_factory.mktemp("elsewhere")
    for package in ("api", "worker", "shared"):
        (directory / package).mkdir()
        (directory / package / "__init__.py").write_text("raise RuntimeError('not this one')")
    config = directory / "baton.yaml"
    config.write_text("model_type: fake\nserved_model_name: from-yaml\nworkers: 5\nfake_itl_ms: 0.5\n")
    environment = {"BATON_CONFIG": str(config), "BATON_SERVED_MODEL_NAME": "from-env", "BATON_WORKERS": "4"}
    with Deployed("--workers=2", "--port=0", directory=directory, BATON_API_KEY=API_KEY, **environment) as running:
        yield running


def models(deployed: Deployed) -> list[str]:
    listed = httpx2.get(f"{deployed.url}/v1/models", headers={"Authorization": f"Bearer {API_KEY}"})
    return [model["id"] for model in listed.raise_for_status().json()["data"]]


def stream(url: str, max_tokens: int) -> Iterator[str]:
    body = {"model": "fake", "messages": [{"role": "user", "content": "la"}], "max_tokens": max_tokens, "stream": True}
    with httpx2.stream("POST", f"{url}/v1/chat/completions", json=body, timeout=TIMEOUT_S) as response:
        yield from (line for line in response.iter_lines() if line.startswith("data: "))


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
def test_printed_curl_answers_when_it_is_pasted(deployed: Deployed) -> None:
    pasted = subprocess.run(
        ["sh", "-c", deployed.curl], env={"PATH": "/usr/bin:/bin", "BATON_API_KEY": API_KEY}, capture_output=True
    )

    answer = json.loads(pasted.stdout)
    assert answer["choices"][0]["message"]["content"].startswith("Which word comes next? Which word")


def test_flag_goes_before_variable_before_yaml(deployed: Deployed) -> None:
    assert models(deployed) == ["from-env"]
    assert "workers: 2" in deployed.stdout.wait_for("is ready at")


def test_secret_stands_on_no_command_line(deployed: Deployed) -> None:
    deployed.stdout.wait_for("is ready")

    shown = [word for child in deployed.children() for word in child.cmdline()]
    assert len(deployed.children()) == 4  # Redis, the gateway, two workers
    assert API_KEY not in " ".join([*shown, str(deployed.stdout), str(deployed.stderr)])


def test_worker_that_dies_is_replaced(deployed: Deployed) -> None:
    deployed.stdout.wait_for("is ready")
    before = {child.pid for child in deployed.children()}
    victim = next(child for child in deployed.children() if child.cmdline()[-1] == "worker")

    victim.kill()

    deployed.stderr.wait_for("was killed by SIGKILL; starting it again in 1 s")
    deployed.stderr.wait_for("is ready")
    assert len({child.pid for child in deployed.children()} - before) == 1


def test_ctrl_c_lets_the_running_answer_end_and_leaves_no_process() -> None:
    with Deployed(*FAKE, "--fake_itl_ms=20") as deployed, ThreadPoolExecutor() as pool:
        frames = stream(deployed.url, max_tokens=60)
        next(frames)
        rest = pool.submit(list, frames)

        status = deployed.end()

        assert status == 0
        assert rest.result()[-1] == "data: [DONE]"
        assert deployed.left_behind() == []


def test_ctrl_c_while_starting_leaves_no_process() -> None:
    with Deployed(*FAKE) as deployed:
        deployed.stderr.wait_for("starting")

        assert deployed.end() == 0

        assert deployed.left_behind() == []
        assert str(deployed.stdout) == ""


def test_second_ctrl_c_does_not_wait_for_the_answer_but_tells_its_client() -> None:
    with Deployed(*FAKE, "--fake_itl_ms=1000") as deployed, ThreadPoolExecutor() as pool:
        frames = stream(deployed.url, max_tokens=1000)
        next(frames)
        rest = pool.submit(list, frames)
        deployed.children()
        deployed.process.send_signal(signal.SIGINT)
        deployed.stderr.wait_for("Ctrl-C again hurries")

        status = deployed.end()

        assert status == 0
        assert deployed.left_behind() == []
        assert '"code":"server_stopping"' in rest.result()[-1]


def test_third_ctrl_c_kills_what_is_left() -> None:
    with Deployed(*FAKE, "--fake_itl_ms=1000") as deployed:
        deployed.stdout.wait_for("is ready")
        for child in deployed.children():
            if child.cmdline()[-1] == "worker":
                child.suspend()
        deployed.process.send_signal(signal.SIGINT)
        deployed.stderr.wait_for("Ctrl-C again hurries")
        deployed.process.send_signal(signal.SIGINT)
        deployed.stderr.wait_for("Ctrl-C again kills")

        deployed.end()

        assert deployed.left_behind() == []


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent is dead")
def test_killed_deploy_leaves_no_process() -> None:
    with Deployed(*FAKE) as deployed:
        deployed.stdout.wait_for("is ready")

        deployed.end(signal.SIGKILL)

        assert deployed.left_behind() == []


def test_every_gpu_gets_a_worker_of_its_own(tmp_path: Path) -> None:
    driver = tmp_path / "nvidia-smi"
    driver.write_text("#!/bin/sh\necho '0, GPU-aaaa'; echo '1, GPU-bbbb'\n")
    driver.chmod(0o755)
    with Deployed(*FAKE, PATH=f"{tmp_path}:{os.environ['PATH']}") as deployed:
        assert "workers: 2" in deployed.stdout.wait_for("is ready")

        environments = [child.environ() for child in deployed.children() if child.cmdline()[-1] == "worker"]
        assert sorted(variables["CUDA_VISIBLE_DEVICES"] for variables in environments) == ["0", "1"]


def test_named_port_that_is_taken_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with Deployed(*FAKE, f"--port={port}") as deployed:
            assert deployed.process.wait(TIMEOUT_S) == 2

    assert f"port {port} is taken by {psutil.Process().name()}" in str(deployed.stderr)


def test_worker_that_dies_while_starting_ends_the_deployment_at_once() -> None:
    with Deployed("--model_type=no-such-model", "--port=0") as deployed:
        assert deployed.process.wait(TIMEOUT_S) == 1
        assert deployed.left_behind() == []

    assert "worker 0 ended with status" in str(deployed.stderr)
    assert "no-such-model" in str(deployed.stderr)
    assert "Traceback" not in str(deployed.stderr)


def test_redis_that_is_not_there_is_told() -> None:
    with Deployed(*FAKE, f"--redis_url=redis://:{API_KEY}@127.0.0.1:{free_port()}/0") as deployed:
        assert deployed.process.wait(TIMEOUT_S) == 1

    assert "Error 111 connecting to 127.0.0.1" in str(deployed.stderr)
    assert API_KEY not in str(deployed.stderr)


def test_wide_open_gateway_is_warned_of(redis_server: EmbeddedRedis) -> None:
    with Deployed(*FAKE, "--host=0.0.0.0", f"--redis_url={redis_server.url}") as deployed:
        deployed.stderr.wait_for("warning: anyone who reaches 0.0.0.0 can use this")
        assert httpx2.get(f"{deployed.url}/health/live").is_success
        assert len(deployed.children()) == 2  # no Redis of its own


def test_deploy_needs_a_model() -> None:
    with Deployed() as deployed:
        assert deployed.process.wait(TIMEOUT_S) == 2

    assert "name a model: --model_type" in str(deployed.stderr)


def test_deploy_serves_the_embedded_redis_to_this_machine_only(deployed: Deployed) -> None:
    deployed.stdout.wait_for("is ready")

    server = next(child for child in deployed.children() if "redis-server" in child.name())
    (place,) = {connection.laddr for connection in server.net_connections() if connection.status == psutil.CONN_LISTEN}
    assert place.ip == "127.0.0.1"
    with Redis(port=place.port) as stranger, pytest.raises(AuthenticationError):
        stranger.keys()


def test_password_of_the_embedded_redis_is_shown_to_nobody(deployed: Deployed) -> None:
    deployed.stdout.wait_for("is ready")
    processes = deployed.children()
    (url,) = {urlsplit(environ["BATON_REDIS_URL"]) for p in processes if "BATON_REDIS_URL" in (environ := p.environ())}

    with Redis(port=url.port, password=url.password) as redis:
        assert redis.exists(keys.WORKERS)
    shown = [*(argument for process in processes for argument in process.cmdline()), deployed.stdout, deployed.stderr]
    assert len(url.password) > 40
    assert not [line for line in shown if url.password in str(line)]
