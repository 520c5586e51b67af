"""Who runs when, and what rows hold meanwhile; with a runner whose rows are lists of tokens."""

import random

import pytest

from shared.events import FinishReason
from shared.job import SamplingParams
from tests.worker.counting import CountingRunner, Numbers
from worker.engine.engine import Engine
from worker.engine.prompt import Prompt
from worker.engine.sequence import Sequence


@pytest.fixture(params=[False, True], ids=["plain", "overlapped"], autouse=True)
def overlaps(request, monkeypatch):
    """Each test with the tokens of a step taken at once, and only after the next one was launched."""
    monkeypatch.setattr(CountingRunner, "overlaps", request.param)
    return request.param


@pytest.fixture(params=[False, True], ids=["one by one", "together"], autouse=True)
def gathers(request, monkeypatch):
    """Each test with prompts read one after the other, and with those that end within a step read together."""
    monkeypatch.setattr(CountingRunner, "gathers", request.param)
    return request.param


def sequence(name, tokens, max_tokens=3, **given):
    return Sequence(name, Prompt(token_ids=tuple(tokens), tokenizer=Numbers()), SamplingParams(), max_tokens, **given)


def finish(engine):
    outputs = []
    while engine.has_work:
        outputs += engine.step()
    return outputs


def test_running_sequences_get_a_token_in_every_step_of_a_long_prefill(overlaps):
    runner = CountingRunner()
    engine = Engine(runner, max_num_seqs=2, max_num_batched_tokens=16)
    engine.add(sequence("short", range(4), max_tokens=20))
    engine.step()
    engine.add(sequence("long", range(100, 200), max_tokens=2))

    steps = [engine.step() for _ in range(9)]

    assert all("short" in {output.sequence_id for output in outputs} for outputs in steps)
    of_long = [index for index, outputs in enumerate(steps) if any(o.sequence_id == "long" for o in outputs)]
    assert of_long == ([7, 8] if overlaps else [6, 7])
    assert max(runner.reads) == 15


def test_short_prompts_share_a_step_within_its_budget():
    runner = CountingRunner()
    engine = Engine(runner, max_num_seqs=8, max_num_batched_tokens=16)
    for index in range(5):
        engine.add(sequence(f"{index}", range(100 * index, 100 * index + 6)))

    engine.step()

    assert runner.batch_sizes == [2]  # and a third one as far as the budget goes
    assert sum(runner.reads) <= 16


def distinct(*lengths):
    return [sequence(f"{index}", range(100 * index, 100 * index + n + 1)) for index, n in enumerate(lengths)]


@pytest.mark.parametrize(
    ("lengths", "groups"),
    [
        ([5, 5, 5, 5], [[5, 5, 5, 5]]),
        ([5, 20, 5], [[5, 20], [5]]),  # each takes as much as the longest
        ([5, 40, 5], [[5]]),  # the rest of the long one and the one behind it come in the next step
    ],
)
def test_prompts_that_end_within_a_step_are_read_together(monkeypatch, lengths, groups):
    monkeypatch.setattr(CountingRunner, "gathers", True)
    engine = Engine(runner := CountingRunner(), max_num_seqs=8, max_num_batched_tokens=40)
    for each in distinct(*lengths):
        engine.add(each)

    engine.step()

    assert runner.groups == groups
    assert engine.num_just_read == min(sum(lengths), 39)


def test_prompt_that_breaks_a_group_breaks_alone(monkeypatch):
    monkeypatch.setattr(CountingRunner, "gathers", True)
    engine = Engine(runner := CountingRunner(), max_num_seqs=8)
    others, poison = distinct(5, 6, 7), sequence("poison", range(900, 906))
    for each in (*others[:2], poison, *others[2:]):
        engine.add(each)

    ends = {output.sequence_id: output for output in finish(engine) if output.is_last}

    assert runner.groups == [[5, 6, 5, 7]]
    assert ends.pop("poison").failure is not None
    assert {name: end.finish_reason for name, end in ends.items()} == dict.fromkeys("012", FinishReason.LENGTH)
    assert [each.token_ids for each in others] == [[6, 7, 8], [7, 8, 9], [8, 9, 10]]


def test_prompt_that_begins_as_one_set_aside_waits_and_finds_it(monkeypatch):
    monkeypatch.setattr(CountingRunner, "gathers", True)
    engine = Engine(runner := CountingRunner(), max_num_seqs=8)
    prompts = [range(50), range(100, 150), [*range(30), *range(200, 220)]]
    asked = [sequence(f"{index}", tokens) for index, tokens in enumerate(prompts)]
    for each in asked:
        engine.add(each)

    engine.step()

    assert runner.groups == [[49, 49], [19]]
    assert asked[2].num_cached_tokens == 30


def test_prompts_that_share_what_is_there_already_wait_for_nobody(monkeypatch):
    monkeypatch.setattr(CountingRunner, "gathers", True)
    engine = Engine(runner := CountingRunner(), max_num_seqs=8)
    asked = [sequence(f"{index}", [*range(50), *range(100 * index, 100 * index + 10)]) for index in range(1, 5)]
    for each in asked:
        engine.add(each)

    engine.step()

    assert runner.groups == [[59], [9, 9, 9]]
    assert [each.num_cached_tokens for each in asked] == [0, 50, 50, 50]


def test_lower_priority_number_goes_first_and_equals_in_the_order_they_came():
    engine = Engine(CountingRunner(), max_num_seqs=1)
    for name, priority in (("a", 0), ("b", 0), ("urgent", -5), ("c", 0), ("idle", 1), ("urgent too", -5)):
        engine.add(sequence(name, [1, 2], max_tokens=1, priority=priority))

    outputs = finish(engine)

    assert [output.sequence_id for output in outputs] == ["urgent", "urgent too", "a", "b", "c", "idle"]


def test_sequence_cancelled_amid_its_prefill_leaves_at_once():
    runner = CountingRunner()
    engine = Engine(runner, max_num_seqs=2, max_num_batched_tokens=16)
    engine.add(sequence("long", range(1000)))
    engine.step()

    output = engine.abort("long")

    assert output is not None
    assert output.finish_reason is FinishReason.CANCELLED
    assert not engine.has_work
    assert sum(runner.reads) <= 16


def test_what_a_cancelled_prefill_read_is_not_read_again():
    engine = Engine(runner := CountingRunner(), max_num_seqs=2, max_num_batched_tokens=16)
    engine.add(sequence("long", range(100)))
    engine.step()
    engine.abort("long")
    again = sequence("again", range(100))
    engine.add(again)

    finish(engine)

    assert again.num_cached_tokens == 16
    assert sum(runner.reads) == 99


def test_next_turn_reads_only_what_is_new():
    engine = Engine(runner := CountingRunner(), max_num_seqs=2)
    first = sequence("first", range(50), max_tokens=10)
    engine.add(first)
    finish(engine)
    runner.reads.clear()
    second = sequence("second", [*range(50), *first.token_ids, *range(500, 520)])
    engine.add(second)

    finish(engine)

    assert second.num_cached_tokens == 59  # the answer's last token was never fed
    assert sum(runner.reads) == 20
    assert engine.stats.cached_tokens == 59
    assert engine.stats.prefix_hits == 1


def test_choices_of_one_prompt_share_one_prefill():
    engine = Engine(runner := CountingRunner(), max_num_seqs=4)
    choices = [sequence(f"{index}", range(100), max_tokens=5 + index) for index in range(4)]
    for choice in choices:
        engine.add(choice)

    finish(engine)

    assert [choice.num_cached_tokens for choice in choices] == [0, 99, 99, 99]
    assert runner.reads == [99]


@pytest.mark.parametrize(
    ("tokens", "given"), [(range(50), {"adapter": 1}), ([99, *range(1, 50)], {})], ids=["adapter", "token"]
)
def test_nothing_is_shared_where_adapter_or_first_token_differ(tokens, given):
    engine = Engine(CountingRunner(), max_num_seqs=2)
    engine.add(sequence("first", range(50)))
    finish(engine)
    second = sequence("second", tokens, **given)
    engine.add(second)

    finish(engine)

    assert second.num_cached_tokens == 0


def test_row_not_used_for_longest_goes_first():
    engine = Engine(CountingRunner(), max_num_seqs=3)
    talks = [range(50), range(100, 150), range(200, 250)]

    def ask(name, tokens):
        asked = sequence(name, tokens)
        engine.add(asked)
        finish(engine)
        return asked

    answers = [ask(f"{index}", talk).token_ids for index, talk in enumerate(talks)]
    ask("goes on", [*talks[0], *answers[0], 7])
    ask("new", range(300, 350))

    assert ask("second again", talks[2]).num_cached_tokens == 49
    assert ask("first again", talks[0]).num_cached_tokens == 49
    assert ask("gone", talks[1]).num_cached_tokens == 0


def test_a_row_that_broke_is_not_used_again():
    engine = Engine(CountingRunner(), max_num_seqs=2)
    engine.add(sequence("bomb", range(50)))
    finish(engine)
    after = sequence("after", range(50))
    engine.add(after)

    finish(engine)

    assert after.num_cached_tokens == 0


def test_without_prefix_caching_everything_is_read():
    engine = Engine(runner := CountingRunner(), max_num_seqs=2, enable_prefix_caching=False)
    for name in ("first", "second"):
        engine.add(sequence(name, range(50)))
    finish(engine)

    assert runner.reads == [49, 49]


@pytest.mark.parametrize("seed", range(20))
def test_whoever_comes_leaves_or_breaks_every_sequence_ends_once_and_rows_stay_dense(seed):
    """The runner checks before each step that every running row holds its sequence's tokens and nothing else."""
    dice = random.Random(seed)
    num_rows = dice.randint(1, 5)
    engine = Engine(CountingRunner(num_rows), num_rows, max_num_batched_tokens=num_rows + dice.randint(1, 12))
    told, ends = {}, {}

    def hear(outputs):
        for output in outputs:
            assert output.sequence_id not in ends, "nothing follows an end"
            if output.is_last:
                ends[output.sequence_id] = output

    for step in range(300):
        if dice.random() < 0.4 and step < 200:
            fate = dice.choice(["", "", "", "", "", "", "poison", "bomb"] if step % 10 == 0 else [""])
            known = tuple(range(900, 900 + dice.choice([0, 0, 0, 2])))
            prompt = [*range(dice.randint(1, 20)), *(dice.choices(range(3), k=dice.randint(0, 8)))]
            new = sequence(
                f"{fate}{step}", prompt, dice.randint(1, 9), token_ids=known, adapter=dice.randint(0, 1)
            )  # fmt: skip
            told[new.id] = new
            engine.add(new)
        if dice.random() < 0.1 and told:
            aborted = engine.abort(dice.choice(sorted(told)))
            hear([] if aborted is None else [aborted])
        hear(engine.step())
    hear(finish(engine))

    assert told.keys() == ends.keys()
    assert all(told[name].token_ids for name, end in ends.items() if end.finish_reason is FinishReason.LENGTH)
