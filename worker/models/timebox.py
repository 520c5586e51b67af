"""A limit on how long foreign Python code, as a checkpoint's template, may keep a thread."""

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class OutOfTime(Exception):
    """The block took longer than it may."""


@contextmanager
def timebox(limit_s: float) -> Iterator[None]:
    """Raise OutOfTime in the block once so much time has passed; one long call into C is interrupted after it ends."""
    watch = _Watch(threading.get_ident())
    timer = threading.Timer(limit_s, watch.interrupt)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        watch.disarm()
        timer.cancel()


class _Watch:
    """Interrupts one thread, unless it is out of the block already."""

    def __init__(self, thread_id: int) -> None:
        self._thread_id = ctypes.c_ulong(thread_id)
        self._is_armed = True
        self._lock = threading.Lock()

    def interrupt(self) -> None:
        with self._lock:
            if self._is_armed:
                ctypes.pythonapi.PyThreadState_SetAsyncExc(self._thread_id, ctypes.py_object(OutOfTime))

    def disarm(self) -> None:
        with self._lock:
            self._is_armed = False
        ctypes.pythonapi.PyThreadState_SetAsyncExc(self._thread_id, None)
