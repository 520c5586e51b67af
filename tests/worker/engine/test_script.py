"""Steps as programs say what eager steps say, however many rows and tokens they have."""

import logging
from functools import partial

import pytest
import torch

from tests.worker.engine.steps import adapted, answers, new_runner
from worker.engine.forward import EagerForward
from worker.engine.peek import Peek, unseen
from worker.engine.script import Scripts

SOON = partial(Scripts, patience=1)


@pytest.mark.parametrize("overlaps", [False, True], ids=["plain", "overlapped"])
def test_a_program_says_what_steps_of_any_shape_say(case, overlaps):
    runner = new_runner(case.model, record=SOON, overlaps=overlaps)

    assert answers(runner, case.prompts) == case.expected
    assert runner._forward.programs.keys() == {False}
    assert runner._forward.is_trusted


def test_one_row_has_a_program_as_well(internvl2):
    said = [
        answers(new_runner(internvl2.model, num_rows=1, **given), internvl2.prompts, max_num_seqs=1)
        for given in ({}, {"record": SOON})
    ]

    assert said[0] == said[1]


def test_rows_of_one_program_take_adapters_of_their_own(internvl2):
    said = []
    for given in ({}, {"record": SOON}):
        with adapted(new_runner(internvl2.model, **given)) as runner:
            said.append(answers(runner, internvl2.prompts, slots=(0, 1, 2)))

    assert said[0] == said[1] != internvl2.expected
    assert runner._forward.programs.keys() == {False, True}
    assert runner._forward.is_trusted


def test_a_program_with_adapters_is_forgotten_once_they_change(internvl2):
    with adapted(new_runner(internvl2.model)) as eager:
        expected = answers(eager, internvl2.prompts, slots=(2, 1))
    runner, recorded = new_runner(internvl2.model, record=SOON), []
    for _ in range(2):
        with adapted(runner):
            said = answers(runner, internvl2.prompts, slots=(2, 1))
            recorded.append(runner._forward.programs[True])

    assert said == expected
    assert recorded[0] is not recorded[1]
    assert answers(runner, internvl2.prompts) == internvl2.expected
    assert runner._forward.programs.keys() == {False}


def test_nothing_is_recorded_before_it_pays(internvl2):
    runner = new_runner(internvl2.model, record=partial(Scripts, patience=10**6))

    assert answers(runner, internvl2.prompts) == internvl2.expected
    assert not runner._forward.programs


def unrecordable(step, arguments, **given):
    raise RuntimeError("Could not export Python function call\nand much more")


def forgetful(step, arguments, **given):
    """Records something else."""
    return lambda *arguments: torch.zeros_like(step(*arguments))


def narrow(step, arguments, **given):
    """Records something that holds for the recorded number of rows only."""
    rows = arguments[0].shape[1]
    return lambda *arguments: step(*arguments)[:rows] + float(arguments[0].shape[1] != rows)


def tired(step, arguments, **given):
    """Records something that breaks after the checks and two steps."""
    left = iter(range(4))
    return lambda *arguments: step(*arguments) if next(left, None) is not None else unrecordable(step, arguments)


@pytest.mark.parametrize(
    ("trace", "reason"),
    [
        (unrecordable, "RuntimeError: Could not export"),
        (forgetful, "logits are off by"),
        (narrow, "logits are off by"),
        (tired, "RuntimeError: Could not export"),
    ],
    ids=["fails", "differs", "differs with other rows", "fails later"],
)
def test_what_cannot_be_recorded_is_run_and_said_once(internvl2, trace, reason, caplog, monkeypatch):
    monkeypatch.setattr(torch.jit, "trace", trace)

    with caplog.at_level(logging.WARNING):
        said = internvl2.answers(record=SOON)

    assert said == internvl2.expected
    (warning,) = caplog.messages
    assert type(internvl2.model.runner._model).__name__ in warning
    assert reason in warning
    assert "\n" not in warning


def test_a_step_that_looks_at_its_numbers_stays_eager(internvl2, caplog, monkeypatch):
    step = EagerForward.step
    monkeypatch.setattr(EagerForward, "step", lambda *given: step(*given) + 0.0 * float(given[1].token_ids.sum()))

    with caplog.at_level(logging.WARNING):
        said = internvl2.answers(record=SOON)

    assert said == internvl2.expected
    assert "Peek" in caplog.messages[0]


NUMBERS = torch.tensor([3, 1, 2])
LOOKS = {
    "item": lambda: NUMBERS[0].item(),
    "bool": lambda: bool(NUMBERS.sum() > 1),
    "int": lambda: int(NUMBERS[1]),
    "iterated": lambda: [range(number) for number in NUMBERS],
    "tolist": NUMBERS.tolist,
    "numpy": NUMBERS.numpy,
    "array": lambda: NUMBERS.__array__(),
    "equal": lambda: torch.equal(NUMBERS, NUMBERS),
    "nonzero": lambda: NUMBERS.nonzero(),
    "picked by a mask": lambda: NUMBERS[NUMBERS > 1],
    "unique": NUMBERS.unique,
    "repeated": lambda: NUMBERS.repeat_interleave(NUMBERS),
}
BLIND = {
    "shapes": lambda: NUMBERS.expand(NUMBERS.shape[0], -1),
    "places": lambda: NUMBERS[NUMBERS - 1],
    "chosen by a mask": lambda: torch.where(NUMBERS > 1, NUMBERS, 0),
    "written": lambda: NUMBERS.clone().index_put_((NUMBERS - 1,), NUMBERS),
}


@pytest.mark.parametrize("name", LOOKS)
def test_a_look_at_numbers_is_noticed(name):
    with pytest.raises(Peek):
        unseen(LOOKS[name])


@pytest.mark.parametrize("name", BLIND)
def test_what_numbers_do_by_themselves_is_no_look(name):
    assert torch.equal(unseen(BLIND[name]), BLIND[name]())
