"""How long a context a worker offers."""

import pytest

from tests.worker.models.golden import golden_model, settings
from worker.models.family import LoadError
from worker.models.memory import start_runner


def start(trained, **given):
    words = []
    network = golden_model().runner._model
    return start_runner(network, settings(**given), trained, words.append), words


def test_context_is_the_models_own_where_it_fits():
    runner, words = start(trained=3000, max_num_seqs=2)

    assert runner.max_model_len == 3000
    assert not any("context" in said for said in words)


def test_context_is_cut_to_what_fits_and_the_operator_is_told():
    runner, words = start(trained=10**8, max_num_seqs=4)

    assert 2048 < runner.max_model_len < 10**8
    assert str(runner.max_model_len) in words[0]


def test_context_that_was_asked_for_is_never_cut():
    with pytest.raises(LoadError, match=r"set --max_model_len \d+ or"):
        start(trained=10**8, max_num_seqs=4, max_model_len=10**8)
