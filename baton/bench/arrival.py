"""When the requests of an open loop are due, whatever became of earlier ones."""

import random
from collections.abc import Iterator
from itertools import count


def arrivals(rate: float, seed: int, *, is_poisson: bool) -> Iterator[float]:
    """Yield the seconds after the start at which requests are due: at random, or evenly spaced."""
    if not is_poisson:
        yield from (number / rate for number in count())
    draws, due_s = random.Random(f"{seed}/arrivals"), 0.0
    while True:
        yield due_s
        due_s += draws.expovariate(rate)
