"""A mask that takes long holds up its own row: the others' tokens come while it is still being worked out."""

import threading
from concurrent.futures import Future

import pytest

from shared.events import FinishReason
from shared.job import SamplingParams
from tests.worker.counting import CountingRunner, Numbers
from tests.worker.models.golden import generate, user
from worker.engine import constraint as patience
from worker.engine.engine import Engine
from worker.engine.prompt import Prompt
from worker.engine.sequence import Sequence

FOREVER_S = 1000.0


class Gate:
    """A constraint that allows everything, as soon as its mask is let go."""

    is_complete = is_broken = False

    def __init__(self, *, is_quick=False, is_open=False):
        self.is_quick = is_quick
        self.is_open = is_open
        self.next_mask = Future()

    def begin(self):
        if self.is_open:
            self.let_go()
        return self.next_mask

    def let_go(self):
        if not self.next_mask.done():
            self.next_mask.set_result(b"\xff" * 10**5)

    def mask(self):
        assert self.next_mask.done(), "the step waits"
        return self.next_mask.result()

    def accept(self, token_id):
        assert self.next_mask.done(), "the row was in the step"
        self.next_mask = Future()


def row(name, constraint=None, max_tokens=6):
    prompt = Prompt(token_ids=(7, 7), tokenizer=Numbers())
    return Sequence(name, prompt, SamplingParams(), max_tokens, constraint=constraint)


def engine_of(*sequences, runner=None):
    engine = Engine(runner or CountingRunner(), max_num_seqs=8)
    for one in sequences:
        engine.add(one)
    return engine


def run(engine):
    while engine.has_work:
        engine.step()


def test_others_tokens_come_while_a_mask_is_held():
    gate = Gate()
    held, others = row("held", gate), [row(f"{i}") for i in range(3)]
    engine = engine_of(held, *others)
    alone = row("alone")
    run(engine_of(alone))

    while not all(other.is_finished for other in others):
        engine.step()

    assert held.token_ids == []
    assert [other.token_ids for other in others] == [alone.token_ids] * 3
    gate.is_open = True
    run(engine)
    assert held.token_ids == alone.token_ids
    assert held.finish_reason is FinishReason.LENGTH


def test_row_takes_part_again_with_each_mask_that_is_there():
    gate = Gate()
    held, other = row("held", gate), row("other", max_tokens=40)
    runner = CountingRunner()
    engine = engine_of(held, other, runner=runner)

    for _ in range(5):
        engine.step()
        engine.step()
        gate.let_go()
        engine.step()

    assert len(held.token_ids) == 5
    assert runner.batch_sizes == [1, 1, 2] * 5


def test_others_come_and_leave_beside_a_row_that_sits_out():
    gates = [Gate(), Gate(), Gate()]
    held = [row(f"held {i}", gate) for i, gate in enumerate(gates)]
    engine = engine_of(held[0], row("a", max_tokens=2), held[1], row("b", max_tokens=4), held[2])
    for _ in range(3):
        engine.step()
    engine.add(row("c", max_tokens=3))
    while engine.stats.num_running > 3 or engine.stats.num_waiting:
        engine.step()

    engine.abort("held 1")
    gates[2].let_go()
    engine.step()

    assert [len(one.token_ids) for one in held] == [0, 0, 1]
    gates[0].is_open = gates[2].is_open = True
    run(engine)
    assert [one.token_ids for one in held] == [[*range(2, 8)], [], [*range(2, 8)]]


def test_row_that_sat_out_a_broken_step_is_not_suspected():
    gate = Gate()
    engine = engine_of(row("bomb"), row("other"), held := row("held", gate))

    outputs = [output for _ in range(20) for output in engine.step()]
    gate.is_open = True
    run(engine)

    assert [output.sequence_id for output in outputs if output.failure] == ["bomb"]
    assert held.finish_reason is FinishReason.LENGTH


def test_slow_row_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(patience, "PATIENCE_S", FOREVER_S)
    other = row("other")

    engine_of(row("held", Gate()), other).step()

    assert len(other.token_ids) == 1


def test_quick_row_is_waited_for(monkeypatch):
    monkeypatch.setattr(patience, "PATIENCE_S", FOREVER_S)
    gate = Gate(is_quick=True)
    held = row("held", gate)
    letting_go = threading.Timer(0.1, gate.let_go)
    letting_go.start()

    engine_of(held, row("other")).step()
    letting_go.join()

    assert len(held.token_ids) == 1


def test_step_in_which_all_rows_are_late_ends_so_that_others_may_come(monkeypatch):
    monkeypatch.setattr(patience, "PATIENCE_S", 0.001)
    engine = engine_of(row("held", Gate()), row("too", Gate(is_quick=True)))

    assert engine.step() == []
    engine.add(other := row("other"))
    engine.step()

    assert len(other.token_ids) == 1


@pytest.mark.parametrize("name", ["llama", "qwen35"])
def test_real_rows_keep_what_they_remember_when_they_sit_out(load_tiny, name):
    model = load_tiny(name)
    prompts = [model.prepare(user(words), {}) for words in ("hello", "is it late", "no")]
    sampling = SamplingParams(temperature=1.0, seed=3)
    alone = [Sequence(f"{i}", prompt, sampling, 12) for i, prompt in enumerate(prompts)]
    for one in alone:
        generate(model.runner, one)
    gates = [Gate(), None, Gate()]
    beside = [
        Sequence(f"{i}", p, sampling, 12, constraint=g) for i, (p, g) in enumerate(zip(prompts, gates, strict=True))
    ]
    engine = engine_of(*beside, runner=model.runner)

    step = 0
    while engine.has_work:
        for number, gate in enumerate(gates):
            if gate is not None and step % (number + 2) == 0:
                gate.let_go()
        engine.step()
        step += 1

    assert step > 12
    assert [one.token_ids for one in beside] == [one.token_ids for one in alone]
