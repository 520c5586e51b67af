"""Keeps Python's search for garbage away from what stays until the process ends."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def lasting() -> Iterator[None]:
    """Never look through what the block makes; for imports, of which nothing is garbage.

    Python would look through torch's and transformers' half a million objects again and again while they are made, and
    later on stop every thread for a quarter of a second to look through them once more.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
