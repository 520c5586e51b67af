"""The engine's step, with a runner that counts."""

import asyncio
from concurrent.futures import Future

import pytest
import torch

from shared.events import FinishReason
from shared.job import SamplingParams
from tests.worker.counting import CountingRunner, Numbers
from worker.engine.engine import Engine
from worker.engine.failure import EngineBroken, Failure, has_lost_device, is_out_of_memory
from worker.engine.prompt import Prompt
from worker.engine.sequence import Sequence
from worker.engine.thread import EngineThread
from worker.engine.token import Scored, Token


@pytest.fixture(params=[False, True], ids=["plain", "overlapped"], autouse=True)
def overlaps(request, monkeypatch):
    """Each test with the tokens of a step taken at once, and only after the next one was launched."""
    monkeypatch.setattr(CountingRunner, "overlaps", request.param)
    return request.param


def sequence(sequence_id: str, max_tokens: int, *, stop_token_id: int = -1, token_ids=()) -> Sequence:
    prompt = Prompt(token_ids=(7, 7, 7), tokenizer=Numbers(), stop_token_ids=frozenset({stop_token_id}))
    return Sequence(sequence_id, prompt, SamplingParams(), max_tokens, token_ids)


def run(engine: Engine) -> dict[str, list]:
    outputs: dict[str, list] = {}
    while engine.has_work:
        for output in engine.step():
            outputs.setdefault(output.sequence_id, []).append(output)
    return outputs


def test_every_sequence_gets_its_own_tokens_whoever_comes_and_goes():
    runner = CountingRunner()
    engine = Engine(runner, max_num_seqs=3)
    for n in range(8):
        engine.add(sequence(f"s{n}", max_tokens=2 + n % 4))

    outputs = run(engine)

    for n in range(8):
        expected = [3 + i for i in range(2 + n % 4)]
        assert [t for o in outputs[f"s{n}"] for t in o.token_ids] == expected
        assert "".join(o.text for o in outputs[f"s{n}"]) == "".join(f"{t} " for t in expected)
        assert [o.is_last for o in outputs[f"s{n}"]] == [False] * (len(expected) - 1) + [True]
    assert max(runner.batch_sizes) == 3


def test_stop_token_ends_the_answer_and_is_not_shown():
    engine = Engine(CountingRunner(), max_num_seqs=1)
    engine.add(sequence("s", max_tokens=100, stop_token_id=5))

    outputs = run(engine)["s"]

    assert outputs[-1].finish_reason is FinishReason.STOP
    assert "".join(o.text for o in outputs) == "3 4 "
    assert [t for o in outputs for t in o.token_ids] == [3, 4, 5]


def test_resumed_sequence_continues_and_repeats_nothing():
    engine = Engine(CountingRunner(), max_num_seqs=1)
    engine.add(sequence("s", max_tokens=5, token_ids=(3, 4)))

    outputs = run(engine)["s"]

    assert [t for o in outputs for t in o.token_ids] == [5, 6, 7]
    assert "".join(o.text for o in outputs) == "5 6 7 "


def test_sequence_whose_answer_was_complete_only_says_how_it_ended():
    engine = Engine(CountingRunner(), max_num_seqs=1)
    engine.add(sequence("s", max_tokens=2, token_ids=(3, 4)))

    (output,) = run(engine)["s"]

    assert (output.text, output.token_ids, output.finish_reason) == ("", (), FinishReason.LENGTH)


def test_prompt_that_breaks_the_model_harms_nobody_else():
    engine = Engine(CountingRunner(), max_num_seqs=4)
    for name in ("a", "poison", "b"):
        engine.add(sequence(name, max_tokens=3))

    outputs = run(engine)

    assert [o.failure for o in outputs["poison"]] == [Failure.BROKE]
    assert all(o.finish_reason is FinishReason.LENGTH for name in "ab" for o in outputs[name][-1:])


@pytest.mark.parametrize("place", range(4))
def test_step_that_breaks_costs_only_the_sequence_that_breaks_it(place):
    engine = Engine(CountingRunner(), max_num_seqs=4)
    names = ["a", "b", "c", "later"]
    names.insert(place, "bomb")
    for name in names:
        engine.add(sequence(name, max_tokens=9))

    outputs = run(engine)

    assert outputs.pop("bomb")[-1].failure is Failure.BROKE
    for said in outputs.values():
        assert [t for o in said for t in o.token_ids] == list(range(3, 12))
        assert said[-1].finish_reason is FinishReason.LENGTH


def test_step_that_broke_for_no_reason_costs_nobody_anything():
    runner = CountingRunner()
    engine = Engine(runner, max_num_seqs=4)
    for n in range(4):
        engine.add(sequence(f"s{n}", max_tokens=9))
    for _ in range(5):
        engine.step()

    runner.fails_once = RuntimeError("a cosmic ray")
    before = len(engine.running_ids)
    outputs = run(engine)

    assert (before, runner.fails_once) == (4, None)
    assert {said[-1].finish_reason for said in outputs.values()} == {FinishReason.LENGTH}
    assert {said[-1].token_ids for said in outputs.values()} == {(11,)}


@pytest.mark.parametrize("where", ["prefill", "decode"])
def test_too_little_memory_lets_fewer_run_at_once_and_fails_nobody(where):
    runner = CountingRunner()
    runner.room[where] = 2
    engine = Engine(runner, max_num_seqs=8, enable_prefix_caching=False)
    for n in range(8):
        engine.add(sequence(f"s{n}", max_tokens=9))

    outputs = run(engine)

    assert max(runner.batch_sizes) == 2
    for said in outputs.values():
        assert [t for o in said for t in o.token_ids] == list(range(3, 12))


@pytest.mark.parametrize("where", ["prefill", "decode"])
def test_sequence_that_fits_into_no_memory_is_given_up_and_the_rest_goes_on(where):
    runner = CountingRunner()
    runner.too_large = {where: "giant"}
    engine = Engine(runner, max_num_seqs=4, enable_prefix_caching=False)
    for name in ("a", "giant", "b"):
        engine.add(sequence(name, max_tokens=5))

    outputs = run(engine)

    assert outputs.pop("giant")[-1].failure is Failure.OUT_OF_MEMORY
    assert {said[-1].token_ids for said in outputs.values()} == {(7,)}


def test_room_comes_back_as_sequences_end():
    runner = CountingRunner()
    engine = Engine(runner, max_num_seqs=4)
    for n in range(12):
        engine.add(sequence(f"s{n}", max_tokens=9))
    for _ in range(5):
        engine.step()

    runner.fails_once = MemoryError("just now")
    run(engine)

    assert runner.batch_sizes[-20:].count(4) > 0


@pytest.mark.parametrize(
    ("error", "is_memory", "is_device"),
    [
        (MemoryError("no room"), True, False),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), True, False),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:124] . DefaultCPUAllocator: can't allocate memory"), True, False),
        (RuntimeError("CUDA error: device-side assert triggered"), False, True),
        (torch.AcceleratorError("CUDA error: an illegal memory access was encountered"), False, True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False, False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_errors_of_memory_and_device_are_told_apart(error, is_memory, is_device):
    assert (is_out_of_memory(error), has_lost_device(error)) == (is_memory, is_device)


async def test_lost_device_ends_the_thread_and_names_those_that_ran():
    runner = CountingRunner()
    runner.fails_once = RuntimeError("CUDA error: device-side assert triggered")
    thread = EngineThread(Engine(runner, max_num_seqs=1), on_step=lambda outputs: None)
    thread.submit(sequence("ran", max_tokens=9))
    thread.submit(sequence("waited", max_tokens=9))
    thread.start()

    with pytest.raises(EngineBroken) as broken:
        await asyncio.wrap_future(thread.ended)

    assert broken.value.suspects == {"ran"}


@pytest.mark.parametrize("victim", ["first", "second", "third"])
def test_aborted_sequence_frees_its_row_at_once(victim):
    engine = Engine(CountingRunner(), max_num_seqs=2)
    for name in ("first", "second", "third"):
        engine.add(sequence(name, max_tokens=6))
    engine.step()
    engine.step()

    aborted = engine.abort(victim)

    assert aborted is not None
    assert aborted.finish_reason is FinishReason.CANCELLED
    assert engine.abort(victim) is None
    rest = run(engine)
    assert victim not in rest
    assert all(outputs[-1].finish_reason is FinishReason.LENGTH for outputs in rest.values())


class ScoringRunner(CountingRunner):
    """Tells how likely each token is."""

    def token(self, sequence):
        token = super().token(sequence)
        return Token(token.id, -token.id / 100, (Scored(token.id, -token.id / 100),))


def scored_sequence(token_ids=(), held=()):
    prompt = Prompt(token_ids=(7, 7, 7), tokenizer=Numbers())
    sampling = SamplingParams(num_logprobs=1, stop=("5 6 8",))
    return Sequence("s", prompt, sampling, 6, token_ids, held=held)


@pytest.mark.parametrize("num_known", range(1, 6))
def test_log_probabilities_come_with_their_text_whoever_goes_on(num_known):
    """What looks like the stop string is held back, and with it what is known of its tokens."""
    engine = Engine(ScoringRunner(), max_num_seqs=1)
    engine.add(scored_sequence())
    whole = run(engine)["s"]
    known, rest = whole[:num_known], whole[num_known:]
    num_told = sum(len(output.scored) for output in known)
    scored = [token for output in whole for token in output.scored]
    engine.add(scored_sequence(tuple(t for o in known for t in o.token_ids), scored[num_told:num_known]))

    resumed = run(engine)["s"]

    assert [[token.id for token in output.scored] for output in whole] == [[3], [4], [], [], [5, 6, 7], [8]]
    assert [[token.id for token in output.held] for output in whole] == [[], [], [5], [6], [], []]
    assert resumed == rest


async def test_thread_wakes_for_work_and_aborts_between_steps():
    loop, heard = asyncio.get_running_loop(), asyncio.Queue()
    thread = EngineThread(
        Engine(CountingRunner(), max_num_seqs=2), lambda outputs: loop.call_soon_threadsafe(heard.put_nowait, outputs)
    )
    thread.start()
    thread.submit(sequence("endless", max_tokens=10**9))
    await heard.get()

    thread.abort("endless")
    while (outputs := await heard.get())[-1].finish_reason is None:
        pass

    assert outputs[-1].finish_reason is FinishReason.CANCELLED
    thread.stop()


class Telling:
    """A step that says when it is launched and when its tokens are taken, which may fail."""

    def __init__(self, runner, flight):
        self.runner, self.flight, self.number = runner, flight, len(runner.told)
        self.sequences, self.tokens = flight.sequences, flight.tokens
        runner.told.append("launch")

    def collect(self):
        self.runner.told.append("collect")
        if self.runner.fails_late:
            raise self.runner.fails_late.pop()
        return self.tokens


class TellingRunner(CountingRunner):
    def __init__(self):
        super().__init__()
        self.told, self.fails_late = [], []

    def launch(self, sequences, before):
        return Telling(self, super().launch(sequences, before))


class Free:
    """A constraint that allows everything."""

    is_quick = True
    is_complete = is_broken = False

    def begin(self):
        mask = Future()
        mask.set_result(b"\xff" * 1000)
        return mask

    def accept(self, token_id):
        pass


@pytest.mark.parametrize("constraint", [None, Free()], ids=["free", "constrained"])
def test_next_step_is_launched_before_the_tokens_are_here_unless_something_waits_for_them(constraint, overlaps):
    runner = TellingRunner()
    engine = Engine(runner, max_num_seqs=2)
    engine.add(sequence("s", max_tokens=4))
    engine.add(Sequence("c", Prompt(token_ids=(7,), tokenizer=Numbers()), SamplingParams(), 4, constraint=constraint))

    run(engine)

    if overlaps and constraint is None:
        assert runner.told == ["launch", *["launch", "collect"] * 3, "collect"]
    else:
        assert runner.told == ["launch", "collect"] * 4


def test_constraint_that_joins_and_leaves_takes_over_what_is_under_way():
    engine = Engine(TellingRunner(), max_num_seqs=2)
    engine.add(sequence("s", max_tokens=12))
    outputs = [engine.step() for _ in range(3)]
    engine.add(Sequence("c", Prompt(token_ids=(7,), tokenizer=Numbers()), SamplingParams(), 3, constraint=Free()))

    rest = run(engine)

    told = [o for step in outputs for o in step] + rest["s"]
    assert [t for o in told for t in o.token_ids] == list(range(3, 15))
    assert [t for o in rest["c"] for t in o.token_ids] == [1, 2, 3]


def test_step_that_turns_out_to_have_failed_costs_nobody_anything():
    runner = TellingRunner()
    engine = Engine(runner, max_num_seqs=4)
    for n in range(3):
        engine.add(sequence(f"s{n}", max_tokens=9))
    for _ in range(3):
        engine.step()
    runner.fails_late = [RuntimeError("found out too late")]
    engine.add(sequence("s3", max_tokens=9))

    outputs = run(engine)

    assert runner.fails_late == []
    assert {said[-1].token_ids for said in outputs.values()} == {(11,)}
