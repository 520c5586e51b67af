"""How memory is shared out, on devices and models that are nothing but numbers."""

from dataclasses import replace

import pytest
import torch

from worker.engine.meter import Space
from worker.models.budget import Budget, Trial, describe, find_width

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


def measuring(tried, grows, most=10**12):
    """What a request takes by its length; more than `most` isn't there."""

    def measure(width):
        tried.append(width)
        return Trial(4, width, {GPU: int(grows(width))}) if grows(width) <= most else None

    return measure


def test_a_context_that_fits_is_tried_once_and_taken_whole():
    tried = []

    _, width = find_width(budget(), measuring(tried, lambda width: 10 * MIB), 2048, 50001)

    assert (width, tried) == (50001, [50001])


def test_what_the_request_takes_is_left_to_it():
    tried = []

    trial, width = find_width(budget(), measuring(tried, lambda width: 50 * MIB + width * 64), 2048, 10**9)

    assert tried == [800 * MIB // 4096]  # as many as there might be if a request took nothing
    assert 0.9 < (width * 4096 + trial.activations[GPU]) / (800 * MIB) <= 1


@pytest.mark.parametrize("most", [10**12, 800 * MIB], ids=["tried", "not even tried"])
def test_shorter_contexts_are_tried_where_a_request_takes_too_much(most):
    tried, wanted = [], 32768

    _, width = find_width(budget(), measuring(tried, lambda width: width**2 * 4, most), 2048, wanted)

    assert tried == [32768, 16384, 8192]
    assert width == 8192


def test_nothing_fits_if_not_even_the_least_does():
    tried = []

    trial, width = find_width(budget(), measuring(tried, lambda width: 900 * MIB), 2048, 10**6)

    assert tried[-1] == 2048
    assert width < 2048
    assert trial.width == 2048


def test_what_others_use_is_not_given_away():
    alone, beside = budget(), budget(used_mib=300)
    trial = Trial(4, 2048, {GPU: 0})

    assert alone.widest(trial, 10**9) - beside.widest(trial, 10**9) == 300 * MIB // 4096
    assert budget(share=0.8).widest(trial, 10**9) == 700 * MIB // 4096


def test_named_values_fit():
    shared = budget(num_rows=1000)
    trial = Trial(1000, 2048, {GPU: 100 * MIB})

    assert not shared.fits(trial, 2048)
    assert replace(shared, num_rows=shared.most_rows(trial, 2048)).fits(trial, 2048)
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

    assert small.widest(Trial(1, 2048, {GPU: 0, OTHER: 0}), 10**9) == 100 * 1024


def test_the_whole_is_told_in_a_line():
    trial = Trial(4, 2048, {GPU: 50 * MIB})

    (line,) = describe(budget(used_mib=250), trial, 2048, {GPU: 200 * MIB})

    assert line == (
        "memory of cuda:0: 900.0 MiB of 1000.0 MiB may be used: weights 200.0 MiB, else in use 50.0 MiB, "
        "largest request 50.0 MiB, cache of 4 x 2048 tokens 8.0 MiB, encoded media 100.0 MiB, left over 492.0 MiB"
    )
