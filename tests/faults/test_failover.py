"""Leases as they are by default: how soon a stream goes on, and a restart of all workers that nobody notices."""

import random
import signal
from dataclasses import replace

import pytest

from baton.embedded import EmbeddedRedis
from tests.faults.blows import is_killed
from tests.faults.conftest import percentile
from tests.faults.mix import mixed_load
from tests.faults.stage import Stage

DEFAULT_LEASE_S = 3.0
GOAL_S = 5.0
ROUNDS_THAT_MEASURE = 20
"""Fewer, on a machine busy with a suite, say nothing of a time."""
SPARE_ROUNDS = 3
"""Played if no stream had a pause: on a busy machine a blow may come after the last answer's end."""
STREAMS = [replace(question, is_streamed=True, max_tokens=150, stop=None) for question in mixed_load()]


@pytest.fixture(scope="module")
async def stage():
    options = {"lease_s": DEFAULT_LEASE_S, "drain_timeout_s": 0.5, "max_num_seqs": 12}
    with EmbeddedRedis() as redis:
        async with Stage.open(redis.url, num_workers=3, **options) as opened:
            yield opened


@pytest.mark.timeout(1800)
async def test_stream_goes_on_within_seconds_after_its_worker_was_killed(stage, num_rounds, figures):
    num_played, pauses_s = 0, []
    while num_played < num_rounds or (not pauses_s and num_played < num_rounds + SPARE_ROUNDS):
        await stage.play(is_killed, random.Random(f"failover {num_played}"), STREAMS)
        num_played += 1
        # the streams of the other workers have no pause
        pauses_s = [pause_s for pause_s in stage.tally.pauses_s if pause_s > DEFAULT_LEASE_S / 2]
    stage.tally.pauses_s = pauses_s

    figures.add("a worker with a lease of 3 s is killed", num_played, stage)
    assert pauses_s
    assert num_rounds < ROUNDS_THAT_MEASURE or percentile(pauses_s, 0.95) <= GOAL_S


@pytest.mark.timeout(300)
async def test_rolling_restart_of_all_workers_fails_no_stream(stage, figures):
    load = [replace(STREAMS[number % len(STREAMS)], seed=number) for number in range(32)]

    async def restart(answered):
        for worker in list(stage.workers):
            worker.send_signal(signal.SIGTERM)
            await stage.replace(worker)
            assert worker.returncode == 0
            await stage.settle()

    await stage.keep_asking(load, restart)

    figures.add("three workers restarted one after the other under 32 streams", 1, stage)
