"""`baton deploy` as a person starts it: a process, the lines it shows, a Ctrl-C."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import IO, Self

import psutil

TIMEOUT_S = 60.0
BATON = (sys.executable, "-P", "-m", "baton")


class Deployed:
    """One running `baton deploy`; leaving the context kills whatever is left of it."""

    def __init__(self, *arguments: str, directory: Path | None = None, **environment: str) -> None:
        self.process = subprocess.Popen(
            [*BATON, "deploy", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=directory,
            env=without_settings() | environment,
        )
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self.stdout = Lines(self.process.stdout)
        self.stderr = Lines(self.process.stderr)
        self._seen: list[psutil.Process] = []

    @property
    def curl(self) -> str:
        """The line to paste."""
        return self.stdout.wait_for("curl ")

    @property
    def url(self) -> str:
        return self.curl.split()[1].removesuffix("/v1/chat/completions")

    def children(self) -> list[psutil.Process]:
        """Every process below, and those that were seen before."""
        below = psutil.Process(self.process.pid).children(recursive=True)
        self._seen += [child for child in below if child not in self._seen]
        return below

    def end(self, signum: signal.Signals = signal.SIGINT) -> int:
        """Send a signal and return the exit status."""
        self.children()
        self.process.send_signal(signum)
        return self.process.wait(TIMEOUT_S)

    def left_behind(self) -> list[psutil.Process]:
        """Those that outlive it."""
        _, alive = psutil.wait_procs(self._seen, timeout=5)
        return [child for child in alive if child.status() != psutil.STATUS_ZOMBIE]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        if self.process.poll() is None:
            self.children()
            self.process.kill()
            self.process.wait(TIMEOUT_S)
        for child in self._seen:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
        self.stdout.close()
        self.stderr.close()


class Lines:
    """What a process wrote so far, as it arrives."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._lines: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def __str__(self) -> str:
        return "\n".join(self._lines)

    def wait_for(self, words: str) -> str:
        """Return the first line with these words, as soon as it is there."""
        deadline = time.monotonic() + TIMEOUT_S
        while True:
            is_complete = not self._reader.is_alive()
            found = next((line for line in self._lines if words in line), None)
            if found is not None:
                return found
            assert not is_complete, f"{words!r} never came; it wrote:\n{self}"
            assert time.monotonic() < deadline, f"{words!r} did not come in time; it wrote:\n{self}"
            time.sleep(0.02)

    def close(self) -> None:
        self._reader.join()
        self._stream.close()

    def _read(self) -> None:
        for line in self._stream:
            self._lines.append(line.rstrip("\n"))


def without_settings() -> dict[str, str]:
    """The environment of somebody who has not configured anything."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("BATON_", "CUDA_"))}
