"""Keeps a started process alive: reports its death and starts it again, later each time, and not for ever."""

import asyncio
from collections.abc import Callable

from baton.child import Child

QUICK_DEATH_S = 60.0
MAX_QUICK_DEATHS = 5
FIRST_PAUSE_S = 1.0


async def keep_alive(child: Child, say: Callable[[str], None], first_pause_s: float = FIRST_PAUSE_S) -> None:
    """Start the child again whenever it dies; return once it has died quickly too often."""
    num_quick_deaths = 0
    while True:
        ending = await child.wait()
        num_quick_deaths = num_quick_deaths + 1 if child.lived_s < QUICK_DEATH_S else 1
        if num_quick_deaths == MAX_QUICK_DEATHS:
            say(f"{child.name} {ending}, for the {MAX_QUICK_DEATHS}th time in a row; it is not started again")
            return
        pause_s = first_pause_s * 2 ** (num_quick_deaths - 1)
        say(f"{child.name} {ending}; starting it again in {pause_s:g} s")
        await asyncio.sleep(pause_s)
        await child.start()
