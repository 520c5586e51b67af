"""How memory is shared out, on devices and models that are nothing but numbers."""

import pytest
import torch

from worker.engine.meter import Space
from worker.models.budget import Budget, Trial, describe, find_widest

GPU, OTHER = torch.device("cuda:0"), torch.device("cuda:1")
MIB = 2**20


def budget(total_mib=1000, share=0.9, num_rows=4, used_mib=0):
    return Budget(
        spaces={GPU: Space(total_mib * MIB, (total_mib - used_mib) * MIB)},
        share=share,
        num_rows=num_rows,
        pool_bytes=lambda rows, width: {GPU: rows * width * 1024},
        media_bytes=lambda width: 100 * MIB,
    )


def measuring(tried, grows):
    def measure(width):
        tried.append(width)
        return Trial(4, width, {GPU: int(grows(width))}, feature_bytes=0, most_at_once=0)

    return measure


@pytest.mark.parametrize(
    "grows",
    [lambda width: 50 * MIB, lambda width: width * 2**13, lambda width: width**2 * 4],
    ids=["no", "line", "square"],
)
def test_contexts_grow_until_nothing_is_left_and_none_is_tried_that_does_not_fit(grows):
    shared, tried = budget(), []

    trial = find_widest(shared, measuring(tried, grows), 2048, 10**9)

    takes = [grows(width) + 4 * width * 1024 for width in tried]
    assert tried == sorted(tried)
    assert len(tried) < 10
    assert max(takes) <= 800 * MIB
    assert grows(trial.width * 1.1) + 4 * trial.width * 1.1 * 1024 > 800 * MIB


def test_a_context_that_fits_is_taken_whole():
    tried = []

    trial = find_widest(budget(), measuring(tried, lambda width: 10 * MIB), 2048, 5001)

    assert (trial.width, tried) == (5001, [2048, 5001])


def test_what_others_use_is_not_given_away():
    alone, beside = budget(), budget(used_mib=300)
    trial = Trial(4, 2048, {GPU: 0}, 0, 0)

    assert alone.widest(trial, 10**9) - beside.widest(trial, 10**9) == 300 * MIB // 4096
    assert budget(share=0.8).widest(trial, 10**9) == 700 * MIB // 4096


def test_named_values_fit():
    shared = budget(num_rows=1000)
    trial = Trial(1000, 2048, {GPU: 100 * MIB}, 0, 0)

    assert not shared.fits(trial, 2048)
    assert shared.with_rows(shared.most_rows(trial, 2048)).fits(trial, 2048)
    assert shared.fits(trial, shared.widest(trial, 2048))
    assert shared.most_rows(trial, 2048) == 700 * MIB // (2048 * 1024)


def test_every_device_has_to_have_room():
    small = Budget(
        spaces={GPU: Space(1000 * MIB, 1000 * MIB), OTHER: Space(1000 * MIB, 200 * MIB)},
        share=0.9,
        num_rows=1,
        pool_bytes=lambda rows, width: {GPU: width * 1024, OTHER: width * 1024},
        media_bytes=lambda width: 0,
    )

    assert small.widest(Trial(1, 2048, {GPU: 0, OTHER: 0}, 0, 0), 10**9) == 100 * 1024


def test_the_whole_is_told_in_a_line():
    trial = Trial(4, 2048, {GPU: 50 * MIB}, 0, 0)

    (line,) = describe(budget(used_mib=250), trial, {GPU: 200 * MIB})

    assert line == (
        "memory of cuda:0: 900.0 MiB of 1000.0 MiB may be used: weights 200.0 MiB, else in use 50.0 MiB, "
        "largest request 50.0 MiB, cache of 4 x 2048 tokens 8.0 MiB, encoded media 100.0 MiB, left over 492.0 MiB"
    )
