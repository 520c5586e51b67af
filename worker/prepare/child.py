"""The process that decodes: `python -m worker.prepare.child SOCKET FILE MEMORY TIMEOUT`, which `children` starts.

Bytes of strangers meet codecs here and nowhere else. It has no secret and no connection but its socket, opens no file,
and is thrown away when it breaks.
"""

import socket
import sys
from collections.abc import Sequence
from importlib import import_module

import numpy as np
from PIL.Image import preinit

from shared.errors import InvalidMedia
from worker.prepare.audio import read_audio
from worker.prepare.channel import (
    Answer,
    Channel,
    Clip,
    Pictures,
    ReadAudio,
    ReadFrames,
    ReadImage,
    Ready,
    Refused,
    Samples,
    Seen,
    Task,
)
from worker.prepare.confinement import give_up, limit_cpu
from worker.prepare.image import read_image
from worker.prepare.video import read_frames

MAX_CONTENT_BYTES = 2**32
_LAZY = (
    "av.subtitles.stream",
    "encodings.latin_1",
    "encodings.utf_16",
    "xml.etree.ElementTree",
    "PIL.ImageCms",
    *(f"PIL.{name}ImagePlugin" for name in ("Bmp", "Gif", "Jpeg", "Mpo", "Png", "Tiff", "WebP")),
)
"""What libraries import when they need it first, which is too late here."""


class _Declined(Exception):
    """Nobody wants the clip any more."""


def main() -> None:
    """Answer one task after the other until the worker closes the socket."""
    number, memory, memory_bytes, timeout_s = sys.argv[1:]
    channel = Channel(socket.socket(fileno=int(number)), int(memory))
    _load_codecs()
    give_up(int(memory_bytes))
    channel.send(Ready())
    while True:
        try:
            task, content = channel.receive(Task, MAX_CONTENT_BYTES)
        except ConnectionResetError:
            return
        limit_cpu(float(timeout_s))
        _answer(channel, task, bytes(content))


def _answer(channel: Channel, task: Task, content: bytes) -> None:
    try:
        answer, payload = _decode(channel, task, content)
    except InvalidMedia as error:
        channel.send(Refused(error.message))
    except _Declined:
        pass
    else:
        channel.send(answer, *payload)


def _decode(channel: Channel, task: Task, content: bytes) -> tuple[Answer, Sequence[object]]:
    match task:
        case ReadImage():
            picture, orientation = read_image(content, task.limits)
            colour = picture.info.get("transparency")
            transparency = colour if isinstance(colour, tuple) else None
            return Pictures((picture.size,), orientation, transparency), [np.asarray(picture)]
        case ReadFrames():
            frames = read_frames(content, lambda num, rate: _ask(channel, num, rate), task.limits)
            return Pictures(tuple((frame.shape[1], frame.shape[0]) for frame in frames)), frames
        case ReadAudio():
            signal, rate = read_audio(content, task.keep_s, task.limits)
            return Samples(rate), [signal]


def _ask(channel: Channel, num_frames: int, rate: float) -> Sequence[int]:
    channel.send(Clip(num_frames, rate))
    seen, _ = channel.receive(Seen, 0)
    if seen.indices is None:
        raise _Declined
    return list(seen.indices)


def _load_codecs() -> None:
    for name in _LAZY:
        import_module(name)
    preinit()


if __name__ == "__main__":
    main()
