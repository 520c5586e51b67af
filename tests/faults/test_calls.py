"""A worker, then a gateway, dies in the middle of a call's arguments: the client reads on as if nothing had been."""

import json

import httpx2
import pytest
from redis import Redis

from baton.embedded import EmbeddedRedis
from shared import keys
from tests.acceptance.conftest import Stack

NUM_WORDS = 60
ARGUMENTS = json.dumps({"words": " ".join(f"w{n}" for n in range(NUM_WORDS))})
CALL = f'<tool_call> {{"name": "say", "arguments": {ARGUMENTS}}} </tool_call>'
BODY = {
    "model": "fake",
    "messages": [{"role": "user", "content": f"Listen: {CALL} {CALL} THE END"}],
    "tools": [{"type": "function", "function": {"name": "say"}}],
    "stop": " THE END",
    "stream": True,
}


@pytest.fixture(scope="module")
def stack():
    with EmbeddedRedis() as server:
        stack = Stack(server.url)
        try:
            stack.start_gateway()
            for _ in range(2):
                stack.start("worker", "--model_type", "fake", "--fake_itl_ms", "20", "--lease_s", "1.5")
            stack.wait_for_models("fake")
            yield stack
        finally:
            stack.stop()


class Calls:
    """What a client adds up of a stream."""

    def __init__(self) -> None:
        self.content = self.last_id = self.completion_id = ""
        self.reason = None
        self.calls: list[list[str]] = []

    def read(self, lines, *, until_length: int | None = None) -> None:
        """Read to the end, or until the arguments of the latest call are so long."""
        for line in lines:
            name, _, value = line.partition(": ")
            if name == "id":
                self.last_id = value
            elif name == "data" and value.startswith("{"):
                self._take(json.loads(value))
            if line == "" and until_length is not None and self.calls and len(self.calls[-1][2]) >= until_length:
                return

    def _take(self, chunk) -> None:
        self.completion_id = chunk["id"]
        for choice in chunk["choices"]:
            self.content += choice["delta"].get("content") or ""
            self.reason = choice["finish_reason"] or self.reason
            for part in choice["delta"].get("tool_calls", ()):
                if part["index"] == len(self.calls):
                    self.calls.append([part["id"], part["function"]["name"], ""])
                self.calls[part["index"]][2] += part["function"]["arguments"]


def check(heard: Calls) -> None:
    """Compare what was heard with what was said, and told by the answer's log when it is heard again."""
    assert heard.content == "Listen:"
    assert [call[1:] for call in heard.calls] == [["say", ARGUMENTS]] * 2
    assert heard.reason == "tool_calls"


def resume(stack: Stack, heard: Calls, **headers: str) -> None:
    url = f"{stack.url}/v1/chat/completions/{heard.completion_id}/events"
    with httpx2.stream("GET", url, headers=headers, timeout=60) as answer:
        heard.read(answer.iter_lines())


def kill_holder(stack: Stack, heard: Calls) -> None:
    with Redis.from_url(stack.redis_url) as redis:
        holder = redis.hget(keys.lease(heard.completion_id), "holder").decode()
    stack.kill(int(holder.rpartition("/")[0].split("-")[-2]))


def test_call_goes_on_when_its_worker_dies(stack):
    heard, again = Calls(), Calls()

    with httpx2.stream("POST", f"{stack.url}/v1/chat/completions", json=BODY, timeout=60) as answer:
        lines = answer.iter_lines()
        heard.read(lines, until_length=len(ARGUMENTS) // 2)
        kill_holder(stack, heard)
        heard.read(lines)
    again.completion_id = heard.completion_id
    resume(stack, again)

    check(heard)
    assert again.calls == heard.calls


def test_call_goes_on_at_another_gateway(stack):
    heard = Calls()

    with httpx2.stream("POST", f"{stack.url}/v1/chat/completions", json=BODY, timeout=60) as answer:
        heard.read(answer.iter_lines(), until_length=len(ARGUMENTS) // 2)
        stack.kill_gateway()
    assert len(heard.calls) == 1
    stack.start_gateway()
    resume(stack, heard, **{"Last-Event-ID": heard.last_id})

    check(heard)
