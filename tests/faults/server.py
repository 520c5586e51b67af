"""A Redis server that can be killed, hung and started again on the same port, with or without its data."""

import signal
import socket
import subprocess
import time
from typing import Self

from baton.embedded import free_port, redis_executable


class FragileRedis:
    """Keeps its data in an append-only file, unless it is told to lose it."""

    def __init__(self, directory, *options: str) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._directory = directory
        self._options = options
        self.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.stop()

    def start(self) -> None:
        self._process = subprocess.Popen(
            [
                *(redis_executable(), "--bind", "127.0.0.1", "--port", str(self.port), "--dir", self._directory),
                *("--save", "", "--appendonly", "yes", "--appendfsync", "always", "--loglevel", "warning"),
                *self._options,
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
                return connection.recv(5) in {b"+PONG", b"-NOAU"}
        except OSError:
            return False


class Sentinel:
    """Watches a master and replaces it by its replica; `redis-server` in its other mode."""

    def __init__(self, directory, master_port: int, masters_password: str, password: str) -> None:
        self.port = free_port()
        config = directory / "sentinel.conf"
        config.write_text(
            f"port {self.port}\nbind 127.0.0.1\nlogfile {directory}/sentinel.log\n"
            f"requirepass {password}\nsentinel monitor main 127.0.0.1 {master_port} 1\n"
            f"sentinel auth-pass main {masters_password}\n"
            "sentinel down-after-milliseconds main 500\nsentinel failover-timeout main 2000\n"
        )
        self._process = subprocess.Popen([redis_executable(), str(config), "--sentinel"], stdout=subprocess.DEVNULL)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.stop()

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()
