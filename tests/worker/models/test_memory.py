"""How long a context a worker offers, and what it has found out for that."""

import re
from functools import partial

import pytest
import torch

from tests.worker.models.golden import generate, golden_model, sequence, settings
from worker.engine.meter import Space
from worker.engine.runner import MediaStats
from worker.engine.torch_runner import TorchRunner
from worker.engine.trial import try_rows
from worker.models import memory
from worker.models.family import LoadError
from worker.models.internvl2_media import largest_prompt
from worker.models.largest import Extent
from worker.models.memory import start_runner

MIB = 2**20


def largest_of(model):
    return partial(largest_prompt, model.tiler.size, model.vocabulary.control_ids["<IMG_CONTEXT>"], model.tile_length)


def start(trained, **given):
    words = []
    model = golden_model()
    options = settings(media_cache_bytes=0, **given)
    return start_runner(model.runner._model, options, trained, words.append, largest_of(model)), words


@pytest.fixture
def small_device(monkeypatch):
    """A device with little memory, all of it free, found by whoever starts after the model was loaded."""
    golden_model()
    monkeypatch.setattr(memory, "find_space", lambda device: Space(total_bytes=200 * MIB, free_bytes=200 * MIB))


def test_context_is_the_models_own_where_it_fits():
    runner, words = start(trained=3000, max_num_seqs=2)

    assert runner.max_model_len == 3000
    assert not any("context" in said for said in words)
    assert any("cache of 2 x 3000 tokens 4.4 MiB" in said for said in words)


def test_context_is_cut_to_what_fits_and_the_operator_is_told(small_device):
    # A request so large that what other tests left in the heap, where it may lie for nothing, hardly counts.
    runner, words = start(trained=10**6, max_num_seqs=64, max_decoded_bytes=10**7)

    most = 200 * MIB * 0.9 / (64 * 768)  # if the largest request took nothing
    assert 2048 <= runner.max_model_len < most * 0.9
    assert any(f"cut from 1000000 to {runner.max_model_len} tokens" in said for said in words)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"max_num_seqs": 64, "max_model_len": 10**6}, "max_model_len"),
        ({"max_num_seqs": 1500, "max_model_len": 1000}, "max_num_seqs"),
    ],
)
def test_context_that_was_asked_for_is_never_cut_and_the_error_says_what_fits(small_device, given, named):
    with pytest.raises(LoadError, match=r"--gpu_memory_utilization 0.9 leaves 180.0 MiB of cpu .* set ") as refused:
        start(trained=10**6, **given)

    fitting = re.search(rf"--{named} (\d+)", str(refused.value))
    start(trained=10**6, **given | {named: int(fitting[1])})


def test_one_request_may_have_the_media_that_were_planned_for():
    few, many = (start(trained=2048, max_decoded_bytes=most)[0].media_room for most in (10**6, 10**8))

    assert few.most_bytes <= 10**6 + 4 * 3 * 112**2 * 4  # a piece more than asked for at most
    assert many.most_bytes == 10**8
    assert many.total_bytes > 10**8


def test_positions_that_a_longer_trial_has_stretched_are_as_before():
    model = golden_model()
    rotary = model.runner._model.get_decoder().rotary_emb
    trained = rotary.inv_freq.clone()

    longer = TorchRunner(model.runner._model, 2, 4000, allocate=memory.overlaid)
    try_rows(longer, largest_of(model)(Extent(3999, 2**24)), num_rows=2, budget=256)
    assert not torch.equal(rotary.inv_freq, trained)
    TorchRunner(model.runner._model, 2, 2048)

    assert torch.equal(rotary.inv_freq, trained)


def test_the_trial_leaves_no_trace():
    model = golden_model()
    prompts = largest_of(model)(Extent(2000, 2**30))
    before = sequence(prompts[0], temperature=0.8)
    generate(model.runner, before)

    tried = TorchRunner(model.runner._model, 2, 2048, allocate=memory.overlaid)
    try_rows(tried, prompts, num_rows=2, budget=512)
    after = sequence(prompts[0], temperature=0.8)
    started, _ = start(trained=2048, max_num_seqs=2)
    generate(started, after)

    assert before.token_ids == after.token_ids
    assert tried.media_stats.misses == 1
    assert start(trained=2048, max_num_seqs=2)[0].media_stats == MediaStats()
