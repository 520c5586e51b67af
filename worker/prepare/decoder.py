"""The door to the processes that decode, and what one request may have of them.

A crash, a hang or a bomb in a codec costs the request that brought it an InvalidMedia, and nothing else.
"""

import atexit
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any

from shared.errors import InvalidMedia
from worker.prepare.channel import Answer, Clip, Refused, Task
from worker.prepare.children import ChildDied, ChildLate, Children, Trade
from worker.prepare.limits import DecoderLimits, MediaLimits

Choice = Callable[[int, float], Sequence[int]]
"""The indices of the frames to be seen, given how many there are and how many a second has on average."""


class Decoder:
    """Decodes within limits, and counts what it decoded: the media of one request share what one may have."""

    def __init__(self, children: Children, limits: MediaLimits) -> None:
        self._children = children
        self._limits = limits
        self._num_bytes = 0

    def share(self, limits: MediaLimits | None = None) -> "Decoder":
        """Return a decoder for one more request."""
        return Decoder(self._children, limits or self._limits)

    def warm(self) -> None:
        """Start the first process before it is needed."""
        self._children.warm()

    @property
    def limits(self) -> MediaLimits:
        """For the next medium."""
        return self._limits.left(self._num_bytes)

    def decode(self, task: Task, content: bytes, param: str, choose: Choice | None = None) -> tuple[Any, memoryview]:
        """Return what a child makes of the content; raises InvalidMedia about `param`."""
        try:
            with self._children.lend() as child:
                answer, payload = child.ask(task, content, task.limits.max_decoded_bytes)
                if choose is not None and isinstance(answer, Clip):
                    num_frames, rate = answer.num_frames, answer.rate
                    answer, payload = child.choose(lambda: choose(num_frames, rate))
        except ChildLate as late:
            message = f"decoding takes longer than {late}; send a smaller or a simpler file"
            raise InvalidMedia(message, param=param) from None
        except ChildDied:
            raise InvalidMedia("the file can't be decoded: it breaks its decoder", param=param) from None
        if isinstance(answer, Refused):
            raise InvalidMedia(answer.message, param=param)
        self._num_bytes += len(payload)
        return answer, payload


_current: ContextVar[Decoder] = ContextVar("decoder")


@contextmanager
def open_decoder(processes: DecoderLimits, limits: MediaLimits) -> Iterator[Decoder]:
    """Decode in processes of one's own, within these limits, wherever this context reaches."""
    children = _children(processes)
    token = _current.set(Decoder(children, limits))
    try:
        yield _current.get()
    finally:
        _current.reset(token)
        children.close()


@contextmanager
def one_request(limits: MediaLimits | None = None) -> Iterator[None]:
    """Count what is decoded in here together."""
    token = _current.set(current_decoder().share(limits))
    try:
        yield
    finally:
        _current.reset(token)


def current_decoder() -> Decoder:
    """Return the decoder of this context; outside of any, one with the limits' own defaults."""
    return _current.get(None) or _default().share()


@cache
def _default() -> Decoder:
    children = _children(DecoderLimits())
    atexit.register(children.close)
    return Decoder(children, MediaLimits())


def _children(limits: DecoderLimits) -> Children:
    costs = limits.num_decoders, limits.decode_memory_bytes, limits.decode_timeout_s
    return Children(Trade("worker.prepare.child", Answer, *costs))
