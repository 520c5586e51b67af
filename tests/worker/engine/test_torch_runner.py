"""Continuous batching on a real model: company, order and interruption change nothing."""

import pytest
import torch

from tests.worker.models.golden import CASES, generate, golden_model, sequence
from worker.engine.engine import Engine
from worker.engine.torch_runner import TorchRunner

NAMES = (
    "text_only",
    "image_photo",
    "video",
    "text_chinese",
    "two_images",
    "image_square",
    "text_system",
    "multiturn_image_later",
)
SAMPLING = ({}, {"temperature": 1.0, "seed": 5}, {"temperature": 0.7, "top_p": 0.9, "top_k": 40, "seed": 2**63 + 1})


@pytest.fixture(scope="module")
def prompts():
    return [golden_model().prepare(*CASES[name].messages()) for name in NAMES]


@pytest.fixture(scope="module")
def runner():
    return golden_model().runner


def mixed(prompts):
    """Eight requests that differ in media, length and sampling."""
    return [
        sequence(prompt, f"{index}", max_tokens=6 + 5 * (index % 4), **SAMPLING[index % len(SAMPLING)])
        for index, prompt in enumerate(prompts)
    ]


def test_a_request_in_company_is_answered_as_if_alone(prompts, runner):
    alone = mixed(prompts)
    texts_alone = [generate(runner, one)[0] for one in alone]
    together = mixed(prompts)

    texts = generate(runner, *together)

    assert texts_alone == texts
    assert [one.token_ids for one in alone] == [one.token_ids for one in together]
    assert len({*texts}) == len(texts)


def test_rows_that_join_and_leave_disturb_nobody(prompts, runner):
    expected = mixed(prompts)
    for one in expected:
        generate(runner, one)
    crowded = mixed(prompts)

    generate(runner, *crowded, max_num_seqs=3)

    assert [one.token_ids for one in expected] == [one.token_ids for one in crowded]


def test_an_aborted_row_leaves_no_trace(prompts, runner):
    expected, stays = sequence(prompts[1]), sequence(prompts[1], "stays")
    generate(runner, expected)
    engine = Engine(runner, 8)
    for one in (sequence(prompts[0], "leaves", max_tokens=100), sequence(prompts[2], "too", max_tokens=100), stays):
        engine.add(one)
    for _ in range(5):
        engine.step()

    engine.abort("leaves")
    engine.abort("too")
    while engine.has_work:
        engine.step()

    assert expected.token_ids == stays.token_ids


@pytest.mark.parametrize("sampling", SAMPLING)
@pytest.mark.parametrize("num_known", [1, 7, 19])
def test_a_resumed_answer_goes_on_as_if_nothing_had_happened(prompts, runner, sampling, num_known):
    whole = sequence(prompts[1], max_tokens=20, **sampling)
    (text,) = generate(runner, whole)
    known = tuple(whole.token_ids[:num_known])

    resumed = sequence(prompts[1], max_tokens=20, token_ids=known, **sampling)
    (rest,) = generate(runner, resumed)

    assert whole.token_ids == resumed.token_ids
    assert text.endswith(rest)


def test_another_seed_gives_another_answer(prompts, runner):
    answers = [sequence(prompts[0], temperature=4.0, seed=seed, max_tokens=30) for seed in range(3)]

    assert len({*(generate(runner, answer)[0] for answer in answers)}) == 3


def test_half_precision_runs_in_a_batch(prompts):
    """Rounding may change tokens, not the course of things."""
    network = golden_model().runner._model
    half = type(network)._from_config(network.config, dtype=torch.bfloat16).eval()
    answers = [sequence(prompt, str(index)) for index, prompt in enumerate(prompts)]

    generate(TorchRunner(half, max_num_seqs=8, max_model_len=512), *answers)

    assert all(answer.is_finished for answer in answers)
