"""Models that run alone: `generate()` in step with an engine that may lose interest at any time."""

import threading
from dataclasses import replace

import pytest

from tests.worker.models import mix, tiny
from tests.worker.models.golden import generate, sequence
from worker.engine.engine import Engine
from worker.engine.failure import Failure
from worker.engine.torch_runner import TorchRunner


@pytest.fixture(params=tiny.ALONE)
def model(request, load_tiny):
    return load_tiny(request.param)


def generating():
    return {thread for thread in threading.enumerate() if thread.name == "generate"}


def test_requests_say_what_generate_says_one_after_another(model):
    requests = mix.mixed(model)
    answers = [sequence(prompt, str(index), num_tokens) for index, (prompt, num_tokens) in enumerate(requests)]

    generate(model.runner, *answers, max_num_seqs=1)

    assert [mix.generated(model, *request) for request in requests] == [answer.token_ids for answer in answers]


def test_tokens_come_one_at_a_time(model):
    prompt, _ = mix.mixed(model)[0]
    engine = Engine(model.runner, 1)
    engine.add(sequence(replace(prompt, stop_token_ids=frozenset()), max_tokens=5))

    steps = [engine.step() for _ in range(5)]

    assert [len(output.token_ids) for outputs in steps for output in outputs] == [1] * 5
    assert not engine.has_work


def test_sampling_is_the_engines_own(load_tiny):
    """The same logits, seed and position give the same token whichever runner asks."""
    stepped = load_tiny("llama")
    alone = type(load_tiny("bloom").runner)(stepped.runner._model, stepped.facts.max_model_len)
    prompt, _ = mix.mixed(stepped)[0]
    both = [sequence(prompt, max_tokens=12, temperature=1.2, top_p=0.9, seed=7) for _ in range(2)]

    generate(stepped.runner, both[0])
    generate(alone, both[1], max_num_seqs=1)

    assert isinstance(stepped.runner, TorchRunner)
    assert both[0].token_ids == both[1].token_ids


def test_an_aborted_answer_makes_room_for_the_next(model):
    (first, _), (second, num_tokens) = mix.mixed(model)[:2]
    before = generating()
    engine = Engine(model.runner, 1)
    engine.add(sequence(replace(first, stop_token_ids=frozenset()), "leaves", max_tokens=1000))
    engine.add(kept := sequence(second, "stays", num_tokens))
    for _ in range(3):
        engine.step()

    engine.abort("leaves")
    while engine.has_work:
        engine.step()

    assert mix.generated(model, second, num_tokens) == kept.token_ids
    assert len(generating() - before) == 1  # the last one waits for the next request


def test_what_generate_raises_fails_its_request_only(model):
    prompt, num_tokens = mix.mixed(model)[0]
    broken = replace(prompt, features={"no_such_argument": 1}, token_features={})
    engine = Engine(model.runner, 1)
    engine.add(sequence(broken, "breaks"))
    engine.add(kept := sequence(prompt, "stays", num_tokens))

    outputs = [output for _ in range(num_tokens + 1) for output in engine.step()]

    assert outputs[0].failure is Failure.BROKE
    assert mix.generated(model, prompt, num_tokens) == kept.token_ids
