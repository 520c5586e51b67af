"""What a worker and its decoding processes say to each other, over a socket and a file that nobody else has."""

import os
import socket
import struct
import time
from typing import Any

import msgspec

from worker.prepare.limits import MediaLimits

_FRAME = struct.Struct("<IQ")
"""Bytes of the message, bytes of the raw payload behind it."""
MAX_MESSAGE_BYTES = 2**24
MAX_KEPT_BYTES = 2**24
"""Memory of the file that is kept for the next payload."""


class Ready(msgspec.Struct, tag=True, frozen=True):
    """The child's first word: its codecs are loaded."""


class ReadImage(msgspec.Struct, tag=True, frozen=True):
    """Asks for the picture in the payload."""

    limits: MediaLimits


class ReadFrames(msgspec.Struct, tag=True, frozen=True):
    """Asks for some frames of the clip in the payload, once they are chosen."""

    limits: MediaLimits


class ReadAudio(msgspec.Struct, tag=True, frozen=True):
    """Asks for the first seconds of the recording in the payload."""

    limits: MediaLimits
    keep_s: float


class Clip(msgspec.Struct, tag=True, frozen=True):
    """Asks back which frames are to be seen."""

    num_frames: int
    rate: float


class Seen(msgspec.Struct, tag=True, frozen=True):
    """The frames to be seen; None if the clip is refused."""

    indices: tuple[int, ...] | None


class Pictures(msgspec.Struct, tag=True, frozen=True):
    """RGB bytes of pictures or frames, one after the other, in the payload."""

    sizes: tuple[tuple[int, int], ...]
    """(width, height) of each."""
    orientation: int = 1
    """EXIF's number, of a picture as it is stored."""
    transparency: tuple[int, int, int] | None = None
    """The colour that stands for no colour, of a picture without an alpha channel."""


class Samples(msgspec.Struct, tag=True, frozen=True):
    """Mono float32 in the payload."""

    rate: int


class Refused(msgspec.Struct, tag=True, frozen=True):
    """The medium can't be had, and why."""

    message: str


Task = ReadImage | ReadFrames | ReadAudio
Answer = Clip | Pictures | Samples | Refused


class Channel:
    """One end: messages go through a socket, bytes through a file in memory that both ends have.

    Who speaks owns the file until the other end has answered. Raises OSError where the other end is gone or says what
    it may not, and TimeoutError where it is late.
    """

    def __init__(self, end: socket.socket, memory: int) -> None:
        self._socket = end
        self._memory = memory
        self._ends_s: float | None = None

    def expect_by(self, ends_s: float) -> None:
        """Wait no longer than until then, on the monotonic clock, for the other end."""
        self._ends_s = ends_s

    def send(self, message: msgspec.Struct, *payload: Any) -> None:
        """Send a message, and buffers of bytes with it."""
        end = 0
        for part in payload:
            end = self._write(memoryview(part).cast("B"), end)
        head = msgspec.msgpack.encode(message)
        self._set_timeout()
        self._socket.sendall(_FRAME.pack(len(head), end) + head)

    def receive(self, expected: Any, max_bytes: int) -> tuple[Any, memoryview]:
        """Return the next message and its payload of at most so many bytes."""
        num_head, num_payload = _FRAME.unpack(self._read_socket(_FRAME.size))
        if num_head > MAX_MESSAGE_BYTES or num_payload > max_bytes:
            raise OSError("the other end says more than it may")
        try:
            message = msgspec.msgpack.decode(self._read_socket(num_head), type=expected)
        except msgspec.DecodeError as error:
            raise OSError("the other end says what nobody understands") from error
        return message, self._read(num_payload)

    def close(self) -> None:
        """Let the other end know that nothing follows."""
        self._socket.close()
        os.close(self._memory)

    def _write(self, part: memoryview, start: int) -> int:
        while part:
            num_written = os.pwrite(self._memory, part, start)
            part, start = part[num_written:], start + num_written
        return start

    def _read(self, num_bytes: int) -> memoryview:
        whole = memoryview(bytearray(num_bytes))
        start = 0
        while start < num_bytes:
            num_read = os.preadv(self._memory, [whole[start:]], start)
            if not num_read:
                raise OSError("the other end sent less than it said")
            start += num_read
        if num_bytes > MAX_KEPT_BYTES:
            os.ftruncate(self._memory, 0)
        return whole

    def _read_socket(self, num_bytes: int) -> bytes:
        whole = b""
        while len(whole) < num_bytes:
            self._set_timeout()
            if not (part := self._socket.recv(num_bytes - len(whole))):
                raise ConnectionResetError("the other end is gone")
            whole += part
        return whole

    def _set_timeout(self) -> None:
        if self._ends_s is not None:
            left_s = self._ends_s - time.monotonic()
            if left_s <= 0:
                raise TimeoutError
            self._socket.settimeout(left_s)
