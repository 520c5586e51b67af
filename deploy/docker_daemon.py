"""Docker's daemon: the one that runs, or one of our own for as long as the test lasts."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

START_TIMEOUT_S = 60.0


@contextmanager
def docker_daemon() -> Iterator[None]:
    """Have a daemon: start one, as root, if none answers, and end it afterwards."""
    if _answers():
        yield
        return
    if shutil.which("dockerd") is None or os.geteuid() != 0:
        sys.exit("no Docker daemon answers, and none can be started here")
    with tempfile.TemporaryFile() as log, subprocess.Popen(["dockerd"], stdout=log, stderr=log) as daemon:
        try:
            _wait(daemon)
            yield
        finally:
            daemon.terminate()


def _wait(daemon: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while not _answers():
        if daemon.poll() is not None or time.monotonic() > deadline:
            sys.exit("dockerd did not start")
        time.sleep(0.5)


def _answers() -> bool:
    return subprocess.run(["docker", "info"], capture_output=True, check=False).returncode == 0
