"""A decode step waits for nothing but its tokens, whatever its rows ask for."""

from functools import partial

import pytest
import torch

from tests.cases import QWEN_VL
from tests.worker.engine.waiting import waits
from tests.worker.models import golden, mix
from tests.worker.models.golden import sequence
from worker.engine.adapters import LowRank
from worker.engine.capture import rerun
from worker.engine.graphs import Graphs
from worker.engine.sequence import Sequence
from worker.engine.torch_runner import TorchRunner

SAMPLING = (
    {},
    {"temperature": 1.0, "seed": 5, "min_tokens": 30, "logit_bias": ((3, 1.0),), "num_logprobs": 3},
    {"repetition_penalty": 1.3, "presence_penalty": 0.5, "temperature": 0.5, "top_p": 0.9},
    {"temperature": 0.7, "min_p": 0.1, "top_k": 40, "seed": 7, "num_logprobs": 0},
)
MODELS = ("internvl2", "qwen-vl", "qwen2vl", "gemma3", "gptoss", "qwen35")


class Anything:
    """A constraint that allows all tokens."""

    is_complete = is_broken = False

    def mask(self):
        return b"\xff" * 1000

    def accept(self, token_id):
        pass


def start(runner, model):
    """Fill four rows, the last of which is constrained."""
    prompts = [prompt for prompt, _ in mix.mixed(model)][:4]
    rows = [
        sequence(prompt, f"{i}", 50, **given) for i, (prompt, given) in enumerate(zip(prompts, SAMPLING, strict=True))
    ]
    last = rows.pop()
    rows.append(Sequence("3", last.prompt, last.sampling, 50, constraint=Anything()))
    for index, row in enumerate(rows):
        prefill = runner.prefill(row, index, 0)
        while not prefill.is_complete:
            prefill.advance(10**6)
    for slot in (1, 2):
        runner.adapters.put(slot, {name: _change(linear) for name, linear in _queries(runner)})
        rows[slot].adapter = slot
    return rows


def _queries(runner):
    named = runner.adapters.network.named_modules()
    return [(name, m) for name, m in named if name.endswith("q_proj") and "vision" not in name]


def _change(linear):
    return LowRank(torch.ones(1, linear.in_features), torch.ones(linear.out_features, 1), 0.1)


@pytest.fixture(params=MODELS)
def model(request, load_tiny):
    known = {"internvl2": golden.golden_model, "qwen-vl": lambda: golden.golden_model(folder=QWEN_VL)}
    return known[request.param]() if request.param in known else load_tiny(request.param)


@pytest.mark.parametrize("record", [None, partial(Graphs, rerun)], ids=["eager", "fixed"])
def test_a_step_waits_for_nothing_once_one_like_it_was_made(model, record):
    runner = TorchRunner(model.runner._model, 4, 1024, record=record)
    rows = start(runner, model)
    first = runner.launch(rows, None)
    for row in rows:
        row.num_flying = 1

    found = waits(lambda: runner.launch(rows, first))

    assert found == []
    for slot in (1, 2):
        runner.adapters.clear(slot)


NUMBERS = torch.arange(3)


@pytest.mark.parametrize(
    "waiting",
    [
        NUMBERS.tolist, NUMBERS.sum().item, NUMBERS.nonzero,
        lambda: int(NUMBERS[1]), lambda: bool(NUMBERS.any()), lambda: NUMBERS[[0, 2]], lambda: NUMBERS[NUMBERS > 1],
        lambda: torch.tensor([1, 2]), lambda: NUMBERS.float().index_put_((NUMBERS > 1,), torch.ones(())),
        lambda: torch.where(NUMBERS > 1),
    ],
)  # fmt: skip
def test_what_waits_is_noticed(waiting):
    assert waits(waiting)


def test_what_does_not_wait_is_not():
    assert waits(lambda: NUMBERS[1:, None].index_select(0, NUMBERS[:1]).masked_fill(NUMBERS > 1, 0)) == []
