"""Prompts in chunks, tokens and media that are there already: nothing of it shows in any family's answer."""

import random
from dataclasses import replace
from functools import cache

import pytest
import torch

from shared.job import MediaKind, MediaPart, Message, Role, TextPart
from tests.cases import INTERNVL2, QWEN_VL, YI_VL
from tests.worker.models import golden, golden_audio, minicpmv, mix
from tests.worker.models.golden import sequence
from worker.engine.call import find_decoder
from worker.engine.engine import Engine
from worker.engine.pieces import digest
from worker.engine.torch_runner import TorchRunner

GOLDEN = {
    "internvl2": lambda: golden.golden_model(folder=INTERNVL2),
    "minicpmv2.6": lambda: minicpmv.golden_model("2.6"),
    "minicpmv2.5": lambda: minicpmv.golden_model("2.5"),
    "qwen-vl": lambda: golden.golden_model(folder=QWEN_VL),
    "yi-vl": lambda: golden.golden_model(folder=YI_VL),
    "qwen2-audio": golden_audio.golden_audio_model,
}
TINY = ("qwen2vl", "qwen25vl", "qwen3vl", "internvl", "onevision", "gemma3", "gptoss", "llama")
WHOLE = ("qwen35", "lfm2")
NUM_TOKENS = 8


@pytest.fixture(params=[*GOLDEN, *TINY])
def model(request, load_tiny):
    return GOLDEN[request.param]() if request.param in GOLDEN else load_tiny(request.param)


def new_runner(model, **given):
    return TorchRunner(model.runner._model, 4, model.facts.max_model_len, **given)


def part_of(model, number):
    kind = next(iter(model.facts.modalities), None)
    return kind and MediaPart(kind, f"{number}", f"messages[0].content[{number}]")


@cache
def medium(kind, seed):
    return (mix.sound if kind is MediaKind.AUDIO else mix.picture)(random.Random(seed))


def talk(model, seeds, *says, system=None):
    """A prompt whose first turn has media drawn with these seeds; whoever says something takes turns."""
    parts = [part for number in range(len(seeds)) if (part := part_of(model, number))]
    media = {part: medium(part.kind, seed) for part, seed in zip(parts, seeds, strict=False)}
    begin = [Message(Role.SYSTEM, (TextPart(system),))] if system else []
    turns = [
        Message(Role.ASSISTANT if index % 2 else Role.USER, (*(parts if index == 0 else ()), TextPart(text)))
        for index, text in enumerate(says)
    ]
    return model.prepare((*begin, *turns), media)


def answer(engine, prompt, **given):
    """Run one sequence to its end, whatever else the engine has."""
    one = sequence(prompt, f"{random.random()}", max_tokens=NUM_TOKENS, **given)
    engine.add(one)
    while not one.is_finished:
        assert not any(output.failure for output in engine.step())
    return one


def fresh(model, prompt):
    """What is said if nothing is cut, shared or remembered."""
    runner = new_runner(model, media_cache_bytes=0)
    return answer(Engine(runner, 1, 10**6, enable_prefix_caching=False), prompt).token_ids


def first_medium(prompt):
    return min((int(piece.places[0]) for piece in prompt.pieces), default=len(prompt.token_ids))


QUESTION = "what is in this? say the words of it one by one."


def test_prompt_read_in_chunks_is_answered_as_if_read_whole(model):
    prompt = talk(model, (1, 2), QUESTION)
    engine = Engine(new_runner(model), 2, 37)
    company = sequence(talk(model, (), "say it"), "company", max_tokens=10**4)
    company.prompt = replace(company.prompt, stop_token_ids=frozenset(), stop=())
    engine.add(company)
    engine.step()

    chunked = answer(engine, prompt)

    assert fresh(model, prompt) == chunked.token_ids
    assert len(company.token_ids) > len(prompt.token_ids) / 37  # it got a token for each chunk


def test_next_turn_is_answered_as_if_read_anew(model):
    engine = Engine(new_runner(model), 4)
    begin = talk(model, (1, 2), QUESTION)
    answer(engine, begin)
    prompt = talk(model, (1, 2), QUESTION, "it is a clip", "and what else?")

    second = answer(engine, prompt)

    assert fresh(model, prompt) == second.token_ids
    assert second.num_cached_tokens > 0.9 * (len(begin.token_ids) - 20)
    assert engine.stats.media.misses == sum(bool(piece.features) for piece in begin.pieces)


def test_the_same_words_about_another_picture_share_nothing_from_it_on(model):
    engine = Engine(new_runner(model), 4)
    system = "say the words"
    answer(engine, talk(model, (1, 2), QUESTION, system=system))
    prompt = talk(model, (3, 2), QUESTION, system=system)

    other = answer(engine, prompt)

    assert fresh(model, prompt) == other.token_ids
    if part_of(model, 0):
        assert other.num_cached_tokens <= first_medium(prompt)
        assert other.num_cached_tokens > 0 or not prompt.pieces[0].features


def test_running_rows_are_shared_and_not_disturbed(model):
    engine = Engine(new_runner(model), 4, 40)
    prompts = [talk(model, (1,), QUESTION), talk(model, (1,), QUESTION), talk(model, (1,), QUESTION, "it is", "why?")]
    rows = [sequence(prompt, f"{index}", max_tokens=NUM_TOKENS) for index, prompt in enumerate(prompts)]
    for row in rows:
        engine.add(row)
    while engine.has_work:
        engine.step()

    assert [fresh(model, prompt) for prompt in prompts] == [row.token_ids for row in rows]
    assert rows[1].num_cached_tokens == len(prompts[1].token_ids) - 1


@pytest.mark.parametrize("name", ["internvl2", "minicpmv2.6", "qwen-vl", "yi-vl", "qwen2-audio", "qwen3vl", "gemma3"])
def test_picture_of_another_conversation_is_not_encoded_again(name, load_tiny):
    model = GOLDEN[name]() if name in GOLDEN else load_tiny(name)
    engine = Engine(new_runner(model), 4)
    answer(engine, talk(model, (1,), QUESTION))
    num_pieces = engine.stats.media.misses
    prompt = talk(model, (1,), "why?", system="look again")

    again = answer(engine, prompt)

    assert fresh(model, prompt) == again.token_ids
    assert num_pieces == engine.stats.media.misses == engine.stats.media.hits > 0


def test_remembered_media_are_bounded_and_the_oldest_go_first():
    model = GOLDEN["internvl2"]()
    width = model.runner._config.hidden_size
    prompts = [talk(model, (seed,), QUESTION) for seed in (1, 2, 3)]
    size_bytes = max(sum(len(piece.places) for piece in prompt.pieces) for prompt in prompts) * 4 * width
    runner = new_runner(model, media_cache_bytes=size_bytes * 2)
    engine = Engine(runner, 1, enable_prefix_caching=False)

    hits = []
    for prompt in (prompts[0], prompts[0], prompts[1], prompts[2], prompts[0]):
        answer(engine, prompt)
        hits.append(engine.stats.media.hits)
        assert engine.stats.media.size_bytes <= size_bytes * 2

    assert hits[1] > hits[0]
    assert hits[-1] == hits[1]


@pytest.mark.parametrize("name", WHOLE)
def test_models_with_running_states_read_whole_and_share_nothing(name, load_tiny):
    model = load_tiny(name)
    engine = Engine(new_runner(model), 4, 10)
    begin, prompt = talk(model, (1,), QUESTION), talk(model, (1,), QUESTION, "it is", "why?")

    answers = [answer(engine, begin), answer(engine, prompt)]

    assert [fresh(model, begin), fresh(model, prompt)] == [one.token_ids for one in answers]
    assert engine.stats.cached_tokens == 0


def test_chunks_end_beside_pictures_that_see_themselves_whole(load_tiny):
    """Gemma 3's tokens of one picture see each other in both directions."""
    model = load_tiny("gemma3")
    prompt = talk(model, (1, 2), QUESTION)
    one, runner = sequence(prompt), new_runner(model)
    prefill, ends = runner.prefill(one, 0, 0), []
    while not prefill.is_complete:
        prefill.advance(1)
        ends.append(prefill.num_tokens)

    inside = {int(place) for piece in prompt.pieces for place in piece.places[1:]}

    assert len(inside) == 6
    assert inside.isdisjoint(ends)
    assert len({*ends} - {0}) == len(prompt.token_ids) - 1 - len(inside)
    assert fresh(model, prompt) == answer(Engine(runner, 1, 1), prompt).token_ids


def test_prompt_whose_media_nobody_can_tell_apart_shares_nothing():
    model = GOLDEN["internvl2"]()
    engine = Engine(new_runner(model), 4)
    prompt = replace(talk(model, (1,), QUESTION), pieces=())

    first, second = answer(engine, prompt), answer(engine, prompt)

    assert first.token_ids == second.token_ids == fresh(model, prompt)
    assert engine.stats.cached_tokens == 0


def test_media_of_the_same_bytes_in_another_shape_are_others():
    pixels = torch.arange(6.0)

    assert digest({"pixel_values": pixels.view(2, 3)}) != digest({"pixel_values": pixels.view(3, 2)})


def test_media_that_break_the_encoder_fail_their_request_only():
    model = GOLDEN["internvl2"]()
    engine = Engine(new_runner(model), 4, 40)
    good, bad = talk(model, (1,), QUESTION), talk(model, (2,), QUESTION)
    broken = {"pixel_values": torch.zeros(1, 5, 3, 3)}
    bad = replace(bad, pieces=tuple(replace(piece, features=broken) for piece in bad.pieces))
    rows = [sequence(prompt, name, NUM_TOKENS) for name, prompt in (("a", good), ("bad", bad), ("b", good))]
    for row in rows:
        engine.add(row)

    outputs = []
    while engine.has_work:
        outputs += engine.step()

    assert {output.sequence_id for output in outputs if output.failure} == {"bad"}
    assert rows[0].token_ids == rows[2].token_ids == fresh(model, good)


def test_sequence_cancelled_amid_its_chunks_leaves_a_beginning_to_go_on_from(model):
    prompt = talk(model, (1, 2), QUESTION)
    engine = Engine(new_runner(model), 2, 8)
    engine.add(sequence(prompt, "leaves"))
    for _ in range(len(prompt.pieces) + 3):  # each piece may take a step, and each step reads at least one token
        engine.step()

    output = engine.abort("leaves")

    assert output is not None
    assert output.token_ids == ()
    assert not engine.has_work
    again = answer(engine, prompt)
    assert fresh(model, prompt) == again.token_ids
    assert again.num_cached_tokens > 0


def test_prompt_is_read_no_further_than_the_last_layers_keys_and_values(model):
    runner, prompt = new_runner(model), talk(model, (1,), QUESTION)
    last, ended = find_decoder(model.runner._model).layers[-1], []
    hook = last.register_forward_hook(lambda *given: ended.append(given))
    row = sequence(prompt, "0")
    prefill = runner.prefill(row, 0, 0)
    while not prefill.is_complete:
        prefill.advance(50)
    assert not ended

    runner.launch([row], None)

    hook.remove()
    assert len(ended) == 1
