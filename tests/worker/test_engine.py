"""The engine's step, with a runner that counts."""

import asyncio

import pytest

from shared.events import FinishReason
from shared.job import SamplingParams
from tests.worker.counting import CountingRunner, Numbers
from worker.engine.engine import Engine
from worker.engine.prompt import Prompt
from worker.engine.sequence import Sequence
from worker.engine.thread import EngineThread
from worker.engine.token import Scored, Token


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

    assert [o.has_failed for o in outputs["poison"]] == [True]
    assert all(o.finish_reason is FinishReason.LENGTH for name in "ab" for o in outputs[name][-1:])


def test_step_that_breaks_fails_its_sequences_and_frees_their_rows():
    engine = Engine(CountingRunner(), max_num_seqs=2)
    for name in ("bomb", "a", "later"):
        engine.add(sequence(name, max_tokens=3))

    outputs = run(engine)

    assert outputs["bomb"][-1].has_failed
    assert outputs["later"][-1].finish_reason is FinishReason.LENGTH


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

    def decode(self, sequences):
        return [self._scored(token) for token in super().decode(sequences)]

    def _scored(self, token):
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
    engine.add(scored_sequence(tuple(t for o in known for t in o.token_ids), known[-1].held))

    resumed = run(engine)["s"]

    assert [[token.id for token in output.scored] for output in whole] == [[3], [4], [], [], [5, 6, 7], [8]]
    assert [[token.id for token in output.held] for output in whole] == [[], [], [5], [5, 6], [], []]
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
