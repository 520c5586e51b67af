"""A gateway dies in the middle of a stream: any other one goes on with it."""

import httpx2
import pytest

from tests.acceptance.conftest import Stack

NUM_TOKENS = 150
EXPECTED = " ".join("abc"[n % 3] for n in range(NUM_TOKENS))
BODY = {
    "model": "fake",
    "messages": [{"role": "user", "content": "a b c"}],
    "max_tokens": NUM_TOKENS,
    "stream": True,
    "stream_options": {"include_usage": True},
}


@pytest.fixture
def stack(new_stack):
    stack = new_stack()
    stack.start_gateway()
    stack.start("worker", "--model_type", "fake", "--fake_itl_ms", "20")
    stack.wait_for_models("fake")
    return stack


class Frames:
    """What an event source hears of a stream: the text, and the id to go on from."""

    def __init__(self) -> None:
        self.text = ""
        self.last_id = ""
        self.completion_id = ""
        self.usage = None
        self.is_done = False

    def read(self, lines, *, until_tokens: int | None = None) -> None:
        for line in lines:
            name, _, value = line.partition(": ")
            if name == "id":
                self.last_id = value
            elif name == "data" and value == "[DONE]":
                self.is_done = True
            elif name == "data":
                self._take(httpx2.Response(200, content=value).json())
            if until_tokens is not None and len(self.text.split()) >= until_tokens and line == "":
                return

    def _take(self, chunk: dict) -> None:
        assert self.completion_id in {"", chunk["id"]}
        self.completion_id = chunk["id"]
        self.usage = chunk.get("usage") or self.usage
        self.text += "".join(choice["delta"].get("content") or "" for choice in chunk["choices"])


def resume(stack: Stack, frames: Frames, **headers: str) -> None:
    url = f"{stack.url}/v1/chat/completions/{frames.completion_id}/events"
    with httpx2.stream("GET", url, params={"include_usage": "true"}, headers=headers, timeout=30) as response:
        assert response.status_code == 200
        frames.read(response.iter_lines())


def test_stream_of_a_killed_gateway_goes_on_at_another_one(stack):
    frames = Frames()
    with httpx2.stream("POST", f"{stack.url}/v1/chat/completions", json=BODY, timeout=30) as response:
        frames.read(response.iter_lines(), until_tokens=20)
        stack.kill_gateway()

    stack.start_gateway()
    resume(stack, frames, **{"Last-Event-ID": frames.last_id})

    assert frames.text == EXPECTED
    assert frames.is_done
    assert frames.usage["completion_tokens"] == NUM_TOKENS


def test_ended_answer_can_be_heard_again_from_its_beginning(stack):
    frames, again = Frames(), Frames()
    with httpx2.stream("POST", f"{stack.url}/v1/chat/completions", json=BODY, timeout=30) as response:
        frames.read(response.iter_lines())
    again.completion_id = frames.completion_id

    resume(stack, again)

    assert (again.text, again.usage, again.is_done) == (frames.text, frames.usage, True)


@pytest.mark.parametrize(
    ("completion_id", "last_id", "status", "code"),
    [
        ("chatcmpl-0", "3", 404, "completion_not_found"),
        ("chatcmpl-0", "x", 400, "invalid_request"),
        ("chatcmpl-0", "-1", 400, "invalid_request"),
    ],
)
def test_what_cannot_be_resumed_is_told_so(stack, completion_id, last_id, status, code):
    url = f"{stack.url}/v1/chat/completions/{completion_id}/events"

    answer = httpx2.get(url, headers={"Last-Event-ID": last_id}, timeout=30)

    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
