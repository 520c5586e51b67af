"""Bytes of one clip to the frames a model asks for, within limits; knows no model."""

from collections.abc import Callable, Mapping, Sequence
from io import BytesIO

import decord
from PIL import Image

from shared.errors import InvalidMedia
from worker.prepare.image import BROKEN, MAX_PIXELS

MAX_FRAMES = 100_000
"""Frames of the whole clip, about an hour: finding one frame may mean reading all before it."""

DEFAULT_FRAME_MS = 100
"""What browsers show a frame for whose animation doesn't say."""

_CONTAINERS = {"MP4 or MOV": (4, b"ftyp"), "WebM or Matroska": (0, b"\x1aE\xdf\xa3"), "AVI": (8, b"AVI ")}
"""Offset and bytes of each container; a playlist, which would make the decoder open other files, is none."""
_ANIMATIONS = {"GIF": (0, b"GIF8"), "WebP": (8, b"WEBP")}

Choice = Callable[[int, float], Sequence[int]]
"""The indices of the frames to be seen, given how many there are and how many a second has on average."""


def decode_frames(content: bytes, choose: Choice, param: str) -> list[Image.Image]:
    """Return the frames `choose` picks; raises InvalidMedia about `param`."""
    try:
        if _is_one_of(_CONTAINERS, content):
            return _decode_container(content, choose, param)
        if _is_one_of(_ANIMATIONS, content):
            return _decode_animation(content, choose, param)
    except (decord.DECORDError, RuntimeError, *BROKEN) as error:
        raise InvalidMedia("the clip can't be decoded; is it a whole file?", param=param) from error
    taken = ", ".join((*_CONTAINERS, *_ANIMATIONS))
    raise InvalidMedia(f"the clip isn't in a format that is taken: {taken}", param=param)


def _is_one_of(signatures: Mapping[str, tuple[int, bytes]], content: bytes) -> bool:
    return any(content.startswith(mark, offset) for offset, mark in signatures.values())


def _decode_container(content: bytes, choose: Choice, param: str) -> list[Image.Image]:
    reader = decord.VideoReader(BytesIO(content), num_threads=1)
    _check_length(len(reader), param)
    indices = choose(len(reader), reader.get_avg_fps())
    height, width = reader[0].shape[:2]
    _check_pixels(width * height * len(indices), param)
    return [Image.fromarray(frame) for frame in reader.get_batch(indices).asnumpy()]


def _decode_animation(content: bytes, choose: Choice, param: str) -> list[Image.Image]:
    with Image.open(BytesIO(content), formats=tuple(name.upper() for name in _ANIMATIONS)) as animation:
        num_frames: int = getattr(animation, "n_frames", 1)
        _check_length(num_frames, param)
        animation.load()  # WebP tells a frame's duration only then
        indices = choose(num_frames, 1000 / (animation.info.get("duration") or DEFAULT_FRAME_MS))
        _check_pixels(animation.width * animation.height * len(indices), param)
        return [_frame(animation, index) for index in indices]


def _frame(animation: Image.Image, index: int) -> Image.Image:
    animation.seek(index)
    return animation.convert("RGB")


def _check_length(num_frames: int, param: str) -> None:
    if num_frames > MAX_FRAMES:
        raise InvalidMedia(f"the clip has {num_frames} frames; at most {MAX_FRAMES} are taken", param=param)


def _check_pixels(num_pixels: int, param: str) -> None:
    if num_pixels > MAX_PIXELS:
        raise InvalidMedia(f"the frames to be seen have more than {MAX_PIXELS} pixels together", param=param)
