"""Processes that meet what strangers wrote: few, warm, without secrets, and replaced when they break."""

import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, LifoQueue
from typing import Any

import msgspec

from worker.prepare.channel import Channel, Clip, Ready, Seen

logger = logging.getLogger(__name__)

START_TIMEOUT_S = 60.0
GRACE_S = 0.5
"""A process without its socket ends by itself, if it can."""
_INHERITED = ("PATH", "LD_LIBRARY_PATH")
_FIXED = {
    "PYTHONPATH": str(Path(__file__).parents[2]),
    "LC_ALL": "C.UTF-8",
    "MALLOC_ARENA_MAX": "2",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}
"""A child sees nothing else of the worker's environment, where keys and addresses may stand."""


class ChildDied(Exception):
    """The child ended in the middle of a task, or said what it may not say."""


class ChildLate(Exception):
    """The child took longer over a task than it may."""


@dataclass(frozen=True, slots=True)
class Trade:
    """What some children do, and what it may cost."""

    module: str
    """Run with socket, file, memory and time as arguments."""
    answers: Any
    """The type of what they say to a task."""
    num_children: int
    memory_bytes: int
    timeout_s: float


class Child:
    """One process and this end of its socket; it has one task at a time, and `end` ends it."""

    def __init__(self, trade: Trade) -> None:
        self._trade = trade
        self._is_ready = False
        self._max_bytes = 0
        self.is_free = True
        """Whether it has answered all it was asked, and can be asked again."""
        ours, theirs = socket.socketpair()
        memory = os.memfd_create("payload", os.MFD_CLOEXEC)
        self._channel = Channel(ours, memory)
        with theirs:
            self._process = _start((theirs.fileno(), memory), trade)

    @property
    def is_alive(self) -> bool:
        """Whether the process still runs."""
        return self._process.poll() is None

    def ask(self, task: msgspec.Struct, content: bytes, max_bytes: int) -> tuple[Any, memoryview]:
        """Return the answer to a task, or the question back, and its payload of at most so many bytes."""
        self._wait_until_ready()
        self.is_free, self._max_bytes = False, max_bytes
        self._channel.expect_by(time.monotonic() + self._trade.timeout_s)
        self._channel.send(task, content)
        return self._receive()

    def choose(self, choice: Callable[[], Sequence[int]]) -> tuple[Any, memoryview]:
        """Return the answer to the frames that were chosen; if the choice raises, the child need not answer."""
        try:
            indices = tuple(map(int, choice()))
        except BaseException:
            self._channel.send(Seen(None))
            self.is_free = True
            raise
        self._channel.send(Seen(indices))
        return self._receive()

    def end(self) -> int:
        """End the process, and return its status."""
        self._channel.close()
        with suppress(subprocess.TimeoutExpired):
            return self._process.wait(GRACE_S)
        self._process.kill()
        return self._process.wait()

    def _receive(self) -> tuple[Any, memoryview]:
        answer, payload = self._channel.receive(self._trade.answers, self._max_bytes)
        self.is_free = not isinstance(answer, Clip)
        return answer, payload

    def _wait_until_ready(self) -> None:
        if self._is_ready:
            return
        self._channel.expect_by(time.monotonic() + START_TIMEOUT_S)
        try:
            self._channel.receive(Ready, 0)
        except OSError as error:
            self.is_free = False
            raise RuntimeError(f"no process starts: try `python -m {self._trade.module}`") from error
        self._is_ready = True


class Children:
    """Lends each child to one thread at a time; starts one where all are busy, up to the limit. `close` ends them."""

    def __init__(self, trade: Trade) -> None:
        self._trade = trade
        self._is_closed = False
        self._free: LifoQueue[Child | None] = LifoQueue()
        for _ in range(trade.num_children):
            self._free.put(None)

    def warm(self) -> None:
        """Start the first child before it is needed; it isn't waited for."""
        child = self._free.get()
        self._free.put(child or Child(self._trade))

    @contextmanager
    def lend(self) -> Iterator[Child]:
        """Lend a child; raises ChildDied or ChildLate if what it is asked breaks it."""
        child = self._free.get()
        try:
            if child is None or not child.is_alive:
                self._end(child)
                child = Child(self._trade)
            yield child
        except TimeoutError:
            raise ChildLate(f"{self._trade.timeout_s:g} s") from None
        except OSError as error:
            raise ChildDied from error
        finally:
            self._take_back(child)

    def close(self) -> None:
        """End all children; those that are lent end when they come back."""
        self._is_closed = True
        with suppress(Empty):
            while True:
                self._end(self._free.get_nowait())

    def _take_back(self, child: Child | None) -> None:
        if child is not None and (self._is_closed or not child.is_free):
            self._end(child)
            child = None
        self._free.put(child)

    def _end(self, child: Child | None) -> None:
        if child is None:
            return
        is_broken = not (child.is_free and child.is_alive)
        status = child.end()
        if is_broken:
            logger.warning("a process of %s ended with status %d, and is replaced", self._trade.module, status)


def _start(descriptors: tuple[int, int], trade: Trade) -> subprocess.Popen[bytes]:
    arguments = (*descriptors, trade.memory_bytes, trade.timeout_s)
    return subprocess.Popen(
        [sys.executable, "-P", "-m", trade.module, *map(str, arguments)],
        pass_fds=descriptors,
        env={name: os.environ[name] for name in _INHERITED if name in os.environ} | _FIXED,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,  # codecs write there what they find in files
        process_group=0,  # a terminal's Ctrl-C is the worker's to answer
    )
