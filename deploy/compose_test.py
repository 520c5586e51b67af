"""`make compose-test`: builds the images and tries compose.yaml for real, with the fake model and two workers."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from base_images import ensure_base_images
from docker_daemon import docker_daemon
from long_batch import NUM_LINES, has_every_answer_once, start_batch, wait_for_answers

ROOT = Path(__file__).parent.parent
START_TIMEOUT_S = 120.0
STOP_GRACE_S = 45.0
NUM_STREAMS = 6
NUM_TOKENS = 150
QUESTION = "one two three four five"


class Stack:
    """The services of compose.yaml under a project name of their own."""

    def __init__(self) -> None:
        has_plugin = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode == 0
        program = ["docker", "compose"] if has_plugin else ["docker-compose"]
        self._compose = [*program, "-p", "baton-test", "-f", str(ROOT / "compose.yaml")]
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{probe.getsockname()[1]}"
        self.url = f"http://{address}"
        settings = {"BATON_LISTEN": address, "BATON_MODEL_TYPE": "fake", "BATON_FAKE_ITL_MS": "50"}
        self._environment = {name: value for name, value in os.environ.items() if "BATON" not in name} | settings

    def compose(self, *arguments: str) -> None:
        """Run one compose command."""
        subprocess.run([*self._compose, *arguments], env=self._environment, check=True)

    def scale(self, num_workers: int) -> None:
        """Have that many workers, and one of everything else."""
        self.compose("up", "--detach", "--scale", f"worker={num_workers}")

    def containers(self, service: str = "") -> list[str]:
        """Return the running containers of a service, or of all."""
        command = [*self._compose, "ps", "-q", *([service] if service else [])]
        listed = subprocess.run(command, env=self._environment, check=True, capture_output=True, text=True)
        return listed.stdout.split()

    def is_healthy(self) -> bool:
        """Whether every container says so."""
        states = docker("inspect", "-f", "{{.State.Health.Status}}", *self.containers()).split()
        return states == ["healthy"] * 4

    def workers(self) -> set[str]:
        """Return the ids of the workers that have a heartbeat in Redis."""
        return set(docker("exec", *self.containers("redis"), "redis-cli", "ZRANGE", "workers", "0", "-1").split())

    def ask(self, *, stream: bool) -> Any:
        """Send the question and return the response, of which nothing was read yet."""
        body = {"model": "fake", "messages": [{"role": "user", "content": QUESTION}], "max_tokens": NUM_TOKENS}
        return urllib.request.urlopen(
            urllib.request.Request(
                f"{self.url}/v1/chat/completions",
                json.dumps(body | {"stream": stream}).encode(),
                {"Content-Type": "application/json"},
            ),
            timeout=60,
        )

    def answer(self) -> str:
        """Return a plain answer."""
        with self.ask(stream=False) as response:
            answer: str = json.load(response)["choices"][0]["message"]["content"]
            return answer

    def stream(self) -> Iterator[str]:
        """Yield an answer as it grows; a stream that ends without [DONE] is an error."""
        with self.ask(stream=True) as response:
            for line in response:
                if line == b"data: [DONE]\n" or line == b"data: [DONE]\r\n":
                    return
                if line.startswith(b"data: "):
                    choices = json.loads(line.removeprefix(b"data: "))["choices"]
                    yield from (choice["delta"].get("content") or "" for choice in choices)
        raise EOFError("the stream ended without [DONE]")


def docker(*arguments: str) -> str:
    """Run one docker command and return what it printed."""
    return subprocess.run(["docker", *arguments], check=True, capture_output=True, text=True).stdout


def expect(fact: str, *, holds: bool) -> None:
    """Say that something holds, or end the test."""
    if not holds:
        sys.exit(f"FAILED  {fact}")
    print(f"ok      {fact}", flush=True)


def wait_until_healthy(stack: Stack) -> None:
    """Wait until every container is healthy."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while not stack.is_healthy() and time.monotonic() < deadline:
        time.sleep(0.5)
    expect("redis, api and both workers become healthy", holds=stack.is_healthy())


def ask_questions(stack: Stack) -> str:
    """Ask plain and streamed; return the answer."""
    words = QUESTION.split()
    expected = " ".join(words[i % len(words)] for i in range(NUM_TOKENS))
    expect("a plain question is answered", holds=stack.answer() == expected)
    expect("a streamed question is answered with the same text", holds="".join(stack.stream()) == expected)
    return expected


def answers_while(stack: Stack, strike: Callable[[], object]) -> list[str]:
    """Strike in the middle of several streams, and return what their clients have in the end."""
    streams = [stack.stream() for _ in range(NUM_STREAMS)]
    with ThreadPoolExecutor(NUM_STREAMS) as pool:
        beginnings = list(pool.map(lambda stream: next(stream) + next(stream) + next(stream), streams))
        rests = [pool.submit("".join, stream) for stream in streams]
        strike()
        return [beginning + rest.result() for beginning, rest in zip(beginnings, rests, strict=True)]


def scale_down(stack: Stack, expected: str) -> None:
    """Take one of two workers away in the middle of several streams, and bring it back."""
    answers = answers_while(stack, lambda: stack.scale(1))
    expect(f"{NUM_STREAMS} streams outlast a scaling down", holds=answers == [expected] * NUM_STREAMS)
    expect("one worker is left", holds=len(stack.containers("worker")) == 1)
    stack.scale(2)
    wait_until_healthy(stack)


def kill_one_worker(stack: Stack, expected: str) -> None:
    """Kill a worker in the middle of several streams; the other one must go on with all of them."""
    answers = answers_while(stack, lambda: docker("kill", "--signal", "KILL", stack.containers("worker")[0]))
    expect(f"{NUM_STREAMS} streams outlive one of two workers", holds=answers == [expected] * NUM_STREAMS)


def take_down_and_up(stack: Stack) -> None:
    """Remove every container in the middle of a batch; the new ones must find it, and go on with it."""
    batch_id = start_batch(stack.url)
    batch = wait_for_answers(stack.url, batch_id, 2)
    expect("a batch is in progress", holds=batch["status"] == "in_progress")
    stack.compose("down")
    stack.scale(2)
    wait_until_healthy(stack)
    batch = wait_for_answers(stack.url, batch_id, NUM_LINES)
    expect(f"each of its {NUM_LINES} lines is answered once", holds=has_every_answer_once(stack.url, batch))


def stop(stack: Stack, expected: str) -> None:
    """Stop everything in the middle of several streams, within the grace period, and take it down."""
    started_s = time.monotonic()
    answers = answers_while(stack, lambda: stack.compose("stop"))
    took_s = time.monotonic() - started_s
    expect(f"{NUM_STREAMS} streams end before what carries them stops", holds=answers == [expected] * NUM_STREAMS)
    expect(f"everything stops within the grace period ({took_s:.0f} s)", holds=took_s < STOP_GRACE_S)
    stack.compose("down", "--volumes")


def main() -> None:
    """Run the whole test."""
    if shutil.which("docker") is None:
        sys.exit("Docker is not installed here")
    with docker_daemon():
        ensure_base_images()
        stack = Stack()
        try:
            stack.compose("build")
            stack.scale(2)
            wait_until_healthy(stack)
            expect("two workers are registered", holds=len(stack.workers()) == 2)
            expected = ask_questions(stack)
            scale_down(stack, expected)
            kill_one_worker(stack, expected)
            take_down_and_up(stack)
            stop(stack, expected)
        except BaseException:
            stack.compose("logs", "--tail", "30")
            stack.compose("down", "--volumes")
            raise


if __name__ == "__main__":
    main()
