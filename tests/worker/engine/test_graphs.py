"""Steps of fixed shapes, and steps launched before the last one's tokens are known: nothing of it shows in an answer.

On the CPU a step is its own recording, so that buckets, buffers and padding are those of a GPU.
"""

import logging
from functools import partial

import pytest

from tests.worker.engine.steps import adapted, answers, new_runner
from tests.worker.models import golden, mix
from tests.worker.models.golden import sequence
from worker.engine.bucket import enough_rows, enough_width
from worker.engine.capture import reason_to_stay_eager, rerun
from worker.engine.engine import Engine
from worker.engine.forward import EagerForward
from worker.engine.graphs import Graphs

FIXED = partial(Graphs, rerun)


@pytest.mark.parametrize("overlaps", [False, True], ids=["plain", "overlapped"])
def test_steps_of_fixed_shapes_say_what_steps_of_any_shape_say(case, overlaps):
    runner = new_runner(case.model, record=FIXED, overlaps=overlaps)

    said = answers(runner, case.prompts)

    assert said == case.expected
    assert {bucket.rows for bucket in runner._forward._replays} == {1, 2, 4}
    assert runner._forward._is_trusted


def test_steps_that_overlap_say_what_steps_in_order_say(case):
    assert case.answers(overlaps=True) == case.expected


def test_rows_that_fill_a_bucket_leave_what_rests_there_alone(internvl2):
    first, *others = internvl2.prompts[:4]
    engine, known = Engine(new_runner(internvl2.model, record=FIXED), 4), sequence(first, "first")
    for rows in ([known], [sequence(prompt, f"{index}") for index, prompt in enumerate(others)]):
        for row in rows:
            engine.add(row)
        while engine.has_work:
            engine.step()
    again = sequence(first, "again")
    engine.add(again)
    while engine.has_work:
        engine.step()

    assert again.num_cached_tokens == len(first.token_ids) - 1
    assert again.token_ids == known.token_ids


def test_rows_of_one_step_take_adapters_of_their_own(internvl2):
    said = []
    for given in ({}, {"record": FIXED, "overlaps": True}):
        with adapted(new_runner(internvl2.model, **given)) as runner:
            said.append(answers(runner, internvl2.prompts, slots=(0, 1, 2)))

    assert said[0] == said[1] != internvl2.expected
    assert runner._forward._is_trusted


def test_what_was_recorded_with_adapters_is_recorded_anew_once_they_change(internvl2):
    recorded = []
    runner = new_runner(internvl2.model, record=partial(Graphs, lambda step: recorded.append(step) or step))
    with adapted(runner):
        answers(runner, internvl2.prompts, slots=(0, 1))
        num_base = sum(not bucket.is_adapted for bucket in runner._forward._replays)
        before = len(recorded)
    with adapted(runner):
        answers(runner, internvl2.prompts, slots=(0, 1))

    assert len(recorded) - before == before - num_base > 0


def unrecordable(step):
    raise RuntimeError("operation not permitted when stream is capturing\nand much more")


def forgetful(step):
    """Records nothing and notices nothing."""
    return lambda: None


def tired():
    """Records twice."""
    left = iter((rerun, rerun))
    return lambda step: next(left, unrecordable)(step)


@pytest.mark.parametrize(
    ("capture", "reason"),
    [(unrecordable, "RuntimeError: operation not permitted"), (forgetful, "logits are off by"), (tired(), "Runtime")],
    ids=["fails", "differs", "fails later"],
)
def test_what_cannot_be_recorded_is_run_and_said_once(internvl2, capture, reason, caplog):
    with caplog.at_level(logging.WARNING):
        said = internvl2.answers(record=partial(Graphs, capture), overlaps=True)

    assert said == internvl2.expected
    (warning,) = caplog.messages
    assert type(internvl2.model.runner._model).__name__ in warning
    assert reason in warning
    assert "\n" not in warning


@pytest.mark.parametrize(("name", "reason"), [("qwen35", "linear_attention"), ("lfm2", "conv")])
def test_models_with_running_states_stay_eager_and_may_overlap(name, reason, load_tiny):
    model = load_tiny(name)
    prompts = [prompt for prompt, _ in mix.mixed(model)][:5]
    runs = [new_runner(model), new_runner(model, record=FIXED, overlaps=True)]

    said = [golden.generate(run, *(sequence(p, f"{i}") for i, p in enumerate(prompts)), max_num_seqs=4) for run in runs]

    assert said[0] == said[1]
    assert isinstance(runs[1]._forward, EagerForward)
    assert reason in reason_to_stay_eager(model.runner._model, 1024)


def test_buckets_are_few_and_close_together():
    rows = [enough_rows(count, 48) for count in range(1, 49)]
    widths = [enough_width(width, 5000) for width in range(1, 5001)]

    assert sorted({*rows}) == [1, 2, 4, 8, 16, 32, 48]
    assert sorted({*widths}) == [256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096, 5000]
    assert all(width <= enough for width, enough in enumerate(widths, 1))
    assert enough_width(100, 200) == 200
