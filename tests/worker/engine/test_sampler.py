"""The next token: its distribution, its determinism, and its edges."""

from itertools import product

import pytest
import torch

from shared.job import SamplingParams
from worker.engine.sampler import sample, uniform

PROBABILITIES = torch.tensor([0.4, 0.3, 0.2, 0.1])
LOGITS = PROBABILITIES.log()


def draw(num, logits=LOGITS, **sampling):
    """Tokens at positions 0 to num - 1, one row each."""
    params = [SamplingParams(**{"temperature": 1.0} | sampling)] * num
    return sample(logits.expand(num, -1), params, range(num))


def frequencies(tokens):
    return torch.bincount(torch.tensor(tokens), minlength=4) / len(tokens)


def test_draws_follow_the_distribution():
    torch.testing.assert_close(frequencies(draw(40_000)), PROBABILITIES, atol=0.01, rtol=0)


def test_temperature_sharpens():
    expected = PROBABILITIES**2 / (PROBABILITIES**2).sum()

    torch.testing.assert_close(frequencies(draw(40_000, temperature=0.5)), expected, atol=0.01, rtol=0)


@pytest.mark.parametrize(
    ("sampling", "kept"),
    [
        ({"top_k": 2}, {0, 1}),
        ({"top_k": 1}, {0}),
        ({"top_k": 0}, {0, 1, 2, 3}),
        ({"top_k": 1000}, {0, 1, 2, 3}),
        ({"top_p": 0.5}, {0, 1}),
        ({"top_p": 0.39}, {0}),
        ({"top_p": 1e-9}, {0}),
        ({"top_p": 0.95}, {0, 1, 2, 3}),
        ({"top_p": 1.0}, {0, 1, 2, 3}),
        ({"top_k": 3, "top_p": 0.7}, {0, 1}),  # 0.4 and 0.3 of the 0.9 that top-k leaves
        ({"temperature": 1e-30}, {0}),
        ({"temperature": 0.0, "top_p": 0.5}, {0}),
    ],
)
def test_cuts_keep_the_likeliest(sampling, kept):
    assert kept == {*draw(3000, **sampling)}


def test_kept_tokens_share_the_whole():
    expected = torch.tensor([4 / 7, 3 / 7, 0, 0])

    torch.testing.assert_close(frequencies(draw(40_000, top_k=2)), expected, atol=0.01, rtol=0)


def test_each_row_has_its_own_parameters():
    params = [
        SamplingParams(temperature=t, top_k=k, top_p=p, seed=s)
        for t, k, p, s in product((0.0, 0.5, 2.0), (0, 2), (0.6, 1.0), (1, 2))
    ]
    logits = torch.randn(len(params), 500, generator=torch.Generator().manual_seed(0))
    alone = [sample(row[None], [p], [7])[0] for row, p in zip(logits, params, strict=True)]

    assert alone == sample(logits, params, [7] * len(params))


def test_draw_depends_on_seed_and_position_only():
    assert draw(50, seed=3) == draw(50, seed=3)
    assert draw(50, seed=3) != draw(50, seed=4)


def test_uniform_numbers_are_spread():
    numbers = torch.tensor([uniform(seed, position) for seed in range(100) for position in range(100)])

    assert numbers.min() >= 0
    assert numbers.max() < 1
    assert abs(numbers.mean() - 0.5) < 0.01
    assert torch.histc(numbers, 10, 0, 1).min() > 900


def test_uniform_number_never_changes():
    """A worker of another version may continue the answer."""
    assert [uniform(0, 0), uniform(1, 0), uniform(-1, 2), uniform(2**64 - 1, 2)] == [
        0.6524484863740322,
        0.36818951565166946,
        0.3190935449185015,
        0.3190935449185015,
    ]


def test_equal_logits_are_no_trouble():
    assert sample(torch.zeros(1, 9), [SamplingParams()], [0]) == [0]
    assert sample(torch.zeros(2, 9), [SamplingParams(), SamplingParams(temperature=1, top_k=1)], [0, 0]) == [0, 0]


def test_last_token_can_be_drawn():
    logits = torch.full((1, 4), -1e4)
    logits[0, 3] = 0

    assert {3} == {*draw(100, logits=logits)}
