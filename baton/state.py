"""What of a deployment outlives it: a directory that its owner alone can read, for one Redis server at a time."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

WAIT_S = 5.0
"""How long a server that was told to end may take."""
PAUSE_S = 0.1


class DirectoryTaken(Exception):
    """Another deployment keeps its data there; the message says which way out there is."""


def state_directory(port: int) -> Path:
    """Return where a deployment on this port keeps its data, under the user's state (XDG base directories, 0.8)."""
    named = Path(os.environ.get("XDG_STATE_HOME", ""))
    root = named if named.is_absolute() else Path.home() / ".local" / "state"
    return root / "baton" / f"port-{port}"


@contextmanager
def claimed(directory: Path) -> Iterator[int]:
    """Make the directory if need be, and hold it until left; raises DirectoryTaken.

    Yields the lock's descriptor: a process that inherits it holds the directory as long as it lives, too.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (directory / "lock").open("w") as lock:
        deadline_s = time.monotonic() + WAIT_S
        while not _is_locked(lock):
            if time.monotonic() > deadline_s:
                raise DirectoryTaken(
                    f"{directory} holds the data of a deployment that still runs; name another directory with "
                    "--data_dir, or keep nothing with --keep_data false"
                )
            time.sleep(PAUSE_S)
        yield lock.fileno()


def _is_locked(lock: IO[str]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
