"""Several choices with log-probabilities, penalties and a stop string: a worker dies, and no client can tell."""

import concurrent.futures
import threading
from functools import partial

import pytest

from tests.acceptance.conftest import Stack

NUM_TOKENS = 70
WORDS = "the quick brown fox jumps over the lazy dog and the cat sleeps"
ASKED = {
    "model": "fake",
    "messages": [{"role": "user", "content": WORDS}],
    "max_tokens": NUM_TOKENS,
    "temperature": 1.6,
    "seed": 12,
    "n": 2,
    "stop": ["jumps over the lazy dog and the cat fox"],  # begins often, so that text is held back
    "frequency_penalty": 0.02,
    "logprobs": True,
    "top_logprobs": 2,
}
WORKER = ("--model_type", "fake", "--fake_itl_ms", "15", "--max_num_seqs", "3")


@pytest.fixture
def stack(new_stack):
    """Three rows a worker: with two choices a request, some wait in the engine's line."""
    stack = new_stack()
    stack.start_gateway()
    return stack


def entry_of(scored):
    return (scored.token, round(scored.logprob, 4), tuple(top.token for top in scored.top_logprobs))


def streamed(stack: Stack, has_begun: threading.Event, **options) -> dict:
    """What the client has of each choice in the end: text, ends, scored tokens; and the usage."""
    choices = {index: ["", [], []] for index in range(ASKED["n"])}
    usage = None
    with stack.client() as client:
        body = {**ASKED, "stream": True, "stream_options": {"include_usage": True}} | options
        for chunk in client.chat.completions.create(**body):
            usage = chunk.usage or usage
            for part in chunk.choices:
                choice = choices[part.index]
                choice[0] += part.delta.content or ""
                choice[1] += [part.finish_reason] if part.finish_reason else []
                choice[2] += map(entry_of, part.logprobs.content if part.logprobs else [])
                if len(choice[2]) > 20:
                    has_begun.set()
    return {"choices": choices, "tokens": usage.completion_tokens}


def plain(stack: Stack, has_begun: threading.Event) -> dict:
    with stack.client() as client:
        answer = client.chat.completions.create(**ASKED)
    choices = {
        c.index: [c.message.content, [c.finish_reason], [*map(entry_of, c.logprobs.content)]] for c in answer.choices
    }
    return {"choices": choices, "tokens": answer.usage.completion_tokens}


def undisturbed(stack: Stack) -> dict:
    return streamed(stack, threading.Event())


def answers_while(stack: Stack, fault, *asks) -> list[dict]:
    has_begun = threading.Event()
    with concurrent.futures.ThreadPoolExecutor(len(asks)) as pool:
        asked = [pool.submit(ask, stack, has_begun) for ask in asks]
        assert has_begun.wait(30)
        fault()
        return [answer.result(timeout=60) for answer in asked]


def test_killed_worker_costs_no_choice_a_token_or_a_number(stack):
    """Nor a second end: in the second round one choice has met a stop string before the worker dies."""
    workers = [stack.start("worker", *WORKER)]
    stack.wait_for_models("fake")
    expected = undisturbed(stack)
    texts = [choice[0] for choice in expected["choices"].values()]
    stop = next(piece for piece in pieces(texts[0]) if piece not in texts[1])
    stopped = streamed(stack, threading.Event(), stop=[stop])

    def fault():
        workers.append(stack.start("worker", *WORKER))
        workers[-2].kill()

    assert all(len(choice[2]) == NUM_TOKENS for choice in expected["choices"].values())
    assert expected["choices"][0] != expected["choices"][1]
    assert answers_while(stack, fault, streamed, plain) == [expected] * 2
    assert [choice[1] for choice in stopped["choices"].values()] == [["stop"], ["length"]]
    assert answers_while(stack, fault, partial(streamed, stop=[stop])) == [stopped]


def pieces(text: str) -> list[str]:
    words = text.split()
    return [" ".join(words[at : at + 3]) for at in range(3, 15)]
