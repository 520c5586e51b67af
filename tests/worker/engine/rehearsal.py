"""What the engine does with models on a GPU, on devices that hold their numbers in the host's memory.

Run by `test_elsewhere` in a process of its own, which has such devices for good.
"""

from functools import partial

import pytest
import torch
from torch import nn

from tests.worker.engine.elsewhere import Tape, capture, elsewhere, move
from tests.worker.engine.steps import Case, adapted, answers, new_runner
from tests.worker.models import mix
from tests.worker.models.golden import generate, golden_model, sequence
from worker.engine.graphs import Graphs
from worker.models.device import Placement
from worker.models.placement import place

FIRST, SECOND = (torch.device("pretend", index) for index in range(2))
GRAPHS = partial(Graphs, capture)


@pytest.fixture
def load(load_tiny):
    """Load a model that nobody else has: it is taken away."""
    golden_model.cache_clear()
    load_tiny.cache_clear()
    return lambda name: golden_model() if name == "internvl2" else load_tiny(name)


@pytest.mark.parametrize("name", ["internvl2", "qwen2vl", "gptoss"])
def test_recorded_steps_one_ahead_of_their_tokens_say_what_the_host_says(name, load):
    """Prompts in chunks, found again and read together, media by themselves, every kind of sampling."""
    case = Case(load(name))
    with elsewhere():
        move(case.model.runner._model, FIRST)
        runner = new_runner(case.model, overlaps=True, record=GRAPHS)

        assert answers(runner, case.prompts) == case.expected
        assert runner._forward._is_trusted
        assert runner._forward._replays


def test_rows_of_one_recorded_step_take_adapters_of_their_own(load):
    case = Case(load("llama"))
    expected = adapted_answers(case)
    with elsewhere():
        move(case.model.runner._model, FIRST)
        with adapted(new_runner(case.model, record=GRAPHS)) as runner:
            assert answers(runner, case.prompts, slots=(0, 1, 2)) == expected != case.expected
            assert runner._forward._is_trusted


def test_running_states_are_kept(load):
    model = load("qwen35")
    prompts = [prompt for prompt, _ in mix.mixed(model)][:5]

    def said(runner):
        return generate(runner, *(sequence(prompt, f"{i}") for i, prompt in enumerate(prompts)), max_num_seqs=3)

    expected = said(model.runner)
    with elsewhere():
        move(model.runner._model, FIRST)

        assert said(new_runner(model, overlaps=True)) == expected


def test_layers_of_several_devices_get_their_arguments_and_adapters(load, monkeypatch):
    case = Case(load("llama"))
    expected = adapted_answers(case)
    monkeypatch.setattr(nn.Module, "to", move)
    with elsewhere():
        place(case.model.runner._model, Placement((FIRST, SECOND), torch.float32))
        with adapted(new_runner(case.model)) as runner:
            assert [layer.keys.device for layer in runner._cache.layers] == [FIRST, SECOND, SECOND, SECOND]
            assert answers(runner, case.prompts, slots=(0, 1, 2)) == expected

        assert case.answers(overlaps=True) == case.expected


def adapted_answers(case):
    with adapted(new_runner(case.model)) as runner:
        return answers(runner, case.prompts, slots=(0, 1, 2))


def test_devices_are_not_mixed():
    with elsewhere():
        here, there, beyond = torch.ones(3), torch.ones(3, device=FIRST), torch.ones(3, device=SECOND)
        for other in (here, beyond, here[0].to(SECOND)):
            with pytest.raises(AssertionError, match="mixes"):
                there + other
        with pytest.raises(AssertionError, match="mixes"):
            there[beyond.long()]

        assert (there + here[0])[here.long()].tolist() == [2.0] * 3


@pytest.mark.parametrize(
    "wait",
    [
        lambda here, there: there.sum().item(),
        lambda here, there: there.tolist(),
        lambda here, there: there.cpu(),
        lambda here, there: there.nonzero(),
        lambda here, there: there[there > 1],
        lambda here, there: there[here.long()],
        lambda here, there: there.copy_(here),
        lambda here, there: bool(there.any()),
    ],
)
def test_a_recording_waits_for_nothing(wait):
    with elsewhere():
        here, there = torch.ones(3), torch.ones(3, device=FIRST)
        wait(here, there)
        with pytest.raises(AssertionError), Tape().recording():
            wait(here, there)


def test_a_recording_knows_what_the_host_knew():
    with elsewhere():
        given, total, known = torch.ones(3, device=FIRST), torch.zeros(3, device=FIRST), [1.0]
        replay = capture(lambda: total.copy_(given * 2 + known[0]))
        given.fill_(5)
        known[0] = 7.0
        replay()

        assert total.tolist() == [11.0] * 3
