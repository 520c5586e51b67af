"""A person at a terminal: types lines and keys into a program, and waits for what it shows."""

import os
import pty
import subprocess
import sys
import threading
import time
from typing import Self

TIMEOUT_S = 60.0
CTRL_C, CTRL_D = "\x03", "\x04"
LAUNCH = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execvp(sys.argv[1], sys.argv[1:])"
"""Makes the terminal the one whose Ctrl-C reaches the program; forking ourselves is not safe with threads."""


class Typist:
    """Runs a command in a pseudo-terminal of its own; leaving the context kills what is left of it."""

    def __init__(self, *command: str, env: dict[str, str]) -> None:
        self._terminal, theirs = pty.openpty()
        self._process = subprocess.Popen(
            [sys.executable, "-c", LAUNCH, *command],
            **dict.fromkeys(("stdin", "stdout", "stderr"), theirs),
            env=env,
            start_new_session=True,
        )
        os.close(theirs)
        self._shown = ""
        self._read_up_to = 0
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def type(self, keys: str) -> None:
        os.write(self._terminal, keys.encode())

    def wait_for(self, words: str) -> str:
        """Return what was shown up to these words, since the last call."""
        deadline = time.monotonic() + TIMEOUT_S
        while (found := self._shown.find(words, self._read_up_to)) < 0:
            assert time.monotonic() < deadline, f"{words!r} did not come; it showed:\n{self._shown}"
            time.sleep(0.01)
        before = self._shown[self._read_up_to : found]
        self._read_up_to = found + len(words)
        return before

    def wait(self) -> int:
        """Return the exit status, once the program has ended by itself."""
        return self._process.wait(TIMEOUT_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join()
        os.close(self._terminal)

    def _read(self) -> None:
        """Read until the program's end, which Linux shows as an error."""
        try:
            while chunk := os.read(self._terminal, 65536):
                self._shown += chunk.decode(errors="replace")
        except OSError:
            return
