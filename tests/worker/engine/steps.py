"""Requests of many kinds, for runners that make their steps in other ways than one operation after the other."""

from contextlib import contextmanager

import torch

from tests.worker.models import mix
from tests.worker.models.golden import sequence
from worker.engine.adapters import LowRank
from worker.engine.engine import Engine
from worker.engine.torch_runner import TorchRunner

SAMPLING = (
    {},
    {"temperature": 1.0, "seed": 5, "min_tokens": 3},
    {"repetition_penalty": 1.3, "presence_penalty": 0.5},
    {"temperature": 0.7, "top_p": 0.9, "top_k": 40, "seed": 7, "frequency_penalty": 0.4, "num_logprobs": 2},
)


class Case:
    """A model, prompts of every kind that it takes, and what steps of any shape, one after the other, say to them."""

    def __init__(self, model):
        self.model = model
        self.prompts = [prompt for prompt, _ in mix.mixed(model)][:6]
        self.expected = answers(new_runner(model), self.prompts)

    def answers(self, **given):
        return answers(new_runner(self.model, **given), self.prompts)


def new_runner(model, num_rows=4, **given):
    return TorchRunner(model.runner._model, num_rows, 1024, **given)


def answers(runner, prompts, slots=(0,), max_num_seqs=3):
    """Tokens and log-probabilities of requests of many kinds, more than there are rows, with prompts that repeat."""
    rows = [
        sequence(prompt, f"{index}", 5 + 3 * (index % 4), **SAMPLING[index % len(SAMPLING)])
        for index, prompt in enumerate([*prompts, *prompts[:2]])
    ]
    for index, row in enumerate(rows):
        row.adapter = slots[index % len(slots)]
    engine, told = Engine(runner, max_num_seqs, 64), []
    for row in rows:
        engine.add(row)
    while engine.has_work:
        for output in engine.step():
            assert output.failure is None
            told += [(output.sequence_id, token.id, round(token.logprob, 3)) for token in output.scored]
    assert engine.stats.prefix_hits > 0
    return [row.token_ids for row in rows], sorted(told)


def random_changes(network, seed):
    dice = torch.Generator().manual_seed(seed)
    linears = {name: m for name, m in network.named_modules() if name.endswith(("q_proj", "down_proj"))}
    language = {name: m for name, m in linears.items() if "vision" not in name}
    return {
        name: LowRank(
            torch.randn(2, linear.in_features, generator=dice), torch.randn(linear.out_features, 2, generator=dice), 0.3
        )
        for name, linear in language.items()
    }


@contextmanager
def adapted(runner):
    """Two adapters beside the base, on layers that others may look at as well."""
    for slot in (1, 2):
        runner.adapters.put(slot, random_changes(runner.adapters.network, slot))
    try:
        yield runner
    finally:
        for slot in (1, 2):
            runner.adapters.clear(slot)
