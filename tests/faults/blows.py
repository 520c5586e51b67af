"""What happens to workers: each takes the stage and what decides whom it strikes, and returns once it is over."""

import asyncio
import random
import signal

from tests.faults.stage import LEASE_S, Stage


async def is_killed(stage: Stage, rng: random.Random) -> None:
    await stage.replace(await stage.strike(rng, signal.SIGKILL))


async def hangs_and_wakes_up_late(stage: Stage, rng: random.Random) -> None:
    victim = await stage.strike(rng, signal.SIGSTOP)
    await asyncio.sleep(LEASE_S * rng.uniform(0.5, 2.0))
    victim.send_signal(signal.SIGCONT)


async def breaks_in_a_step(stage: Stage, rng: random.Random) -> None:
    await stage.strike(rng, signal.SIGUSR1)


async def has_too_little_memory(stage: Stage, rng: random.Random) -> None:
    await stage.strike(rng, signal.SIGUSR2)


async def loses_its_device(stage: Stage, rng: random.Random) -> None:
    victim = await stage.strike(rng, signal.SIGHUP)
    await stage.replace(victim)
    assert victim.returncode == 1


async def drains(stage: Stage, rng: random.Random) -> None:
    victim = await stage.strike(rng, signal.SIGTERM)
    await stage.replace(victim)
    assert victim.returncode == 0


async def is_told_twice_to_end(stage: Stage, rng: random.Random) -> None:
    victim = await stage.strike(rng, signal.SIGTERM)
    await asyncio.sleep(0.02)
    victim.send_signal(signal.SIGTERM)
    await stage.replace(victim)


WORKER_BLOWS = (
    is_killed,
    hangs_and_wakes_up_late,
    breaks_in_a_step,
    has_too_little_memory,
    loses_its_device,
    drains,
    is_told_twice_to_end,
)
