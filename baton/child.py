"""One process of a deployment: started on a leash, listened to, stopped."""

import asyncio
import codecs
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping

from baton.leash import leash

NUM_LAST_LINES = 30
CHUNK_BYTES = 65536
LAST_WORDS_S = 2.0
"""How long the lines of an ended process may take to arrive."""


class Child:
    """A Python module run as a process of its own; whoever starts it stops it."""

    def __init__(
        self, name: str, module: str, environment: Mapping[str, str], on_line: Callable[[str, str], None]
    ) -> None:
        self.name = name
        self.last_lines: deque[str] = deque(maxlen=NUM_LAST_LINES)
        self._module = module
        self._environment = dict(environment) | {"PYTHONUNBUFFERED": "1"}
        self._on_line = on_line
        self._process: asyncio.subprocess.Process | None = None
        self._listening: asyncio.Task[None] | None = None
        self._started_s = 0.0

    @property
    def pid(self) -> int | None:
        """The process id, once it was started."""
        return self._process.pid if self._process else None

    @property
    def lived_s(self) -> float:
        """Seconds since the last start."""
        return time.monotonic() - self._started_s

    async def start(self) -> None:
        """Start the process, in a session of its own so that the terminal's Ctrl-C does not reach it."""
        self.last_lines.clear()
        self._started_s = time.monotonic()
        self._process = await asyncio.create_subprocess_exec(
            *leash(sys.executable, "-P", "-m", self._module),
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._listening = asyncio.create_task(self._listen(self._process))

    async def wait(self) -> str:
        """Wait until the process has ended and its lines were read; return how it ended."""
        if self._process is None or self._listening is None:
            return "was not started"
        status = await self._process.wait()
        await asyncio.wait({self._listening}, timeout=LAST_WORDS_S)
        return f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"

    async def stop(self, grace_s: float) -> None:
        """Ask the process to end, and kill it if it has not after `grace_s`."""
        self.signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(self.wait(), grace_s)
        except TimeoutError:
            self.signal(signal.SIGKILL)
            await self.wait()

    def signal(self, signum: signal.Signals) -> None:
        """Send a signal to the process and all it started, if it still runs."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):  # it ended, and the loop has not heard of it yet
                os.killpg(self._process.pid, signum)

    async def _listen(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        async for line in _lines(process.stdout):
            self.last_lines.append(line)
            self._on_line(self.name, line)


async def _lines(stream: asyncio.StreamReader) -> AsyncIterator[str]:
    """Yield lines of any length; of one that was overwritten in place, as progress bars are, only its last state."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    rest = ""
    while chunk := await stream.read(CHUNK_BYTES):
        *lines, rest = (rest + decoder.decode(chunk)).split("\n")
        rest = _last_state(rest) + "\r" * rest.endswith("\r")
        for line in lines:
            yield _last_state(line)
    if rest:
        yield _last_state(rest)


def _last_state(line: str) -> str:
    return line.rstrip("\r").rpartition("\r")[2]
