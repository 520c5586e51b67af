"""A Redis server that can be killed, hung and started again on the same port, with or without its data."""

import signal
import socket
import subprocess
import time

from baton.embedded import free_port, redis_executable


class FragileRedis:
    """Keeps its data in an append-only file, unless it is told to lose it."""

    def __init__(self, directory) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._directory = directory
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(
            [
                *(redis_executable(), "--bind", "127.0.0.1", "--port", str(self.port), "--dir", self._directory),
                *("--save", "", "--appendonly", "yes", "--appendfsync", "always", "--loglevel", "warning"),
            ],
            stdout=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 10
        while not self._answers():
            assert time.monotonic() < deadline, "Redis did not start"
            time.sleep(0.02)

    def kill(self, *, loses_data: bool) -> None:
        self._process.kill()
        self._process.wait()
        if loses_data:
            for file in self._directory.glob("*.aof"):
                file.unlink()

    def hang(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        self.resume()
        self._process.kill()
        self._process.wait()

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(5) == b"+PONG"
        except OSError:
            return False
