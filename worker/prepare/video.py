"""Bytes of one clip to the frames a model asks for, within limits; knows no model."""

from collections.abc import Callable, Sequence
from io import BytesIO

import decord
from PIL import Image

from shared.errors import InvalidMedia
from worker.prepare.image import MAX_PIXELS

MAX_FRAMES = 100_000
"""Frames of the whole clip, about an hour: finding one frame may mean reading all before it."""

_SIGNATURES = {"MP4 or MOV": (4, b"ftyp"), "WebM or Matroska": (0, b"\x1aE\xdf\xa3"), "AVI": (8, b"AVI ")}
"""Offset and bytes of each container; a playlist, which would make the decoder open other files, is none."""


Choice = Callable[[int, float], Sequence[int]]
"""The indices of the frames to be seen, given how many there are and how many a second has on average."""


def decode_frames(content: bytes, choose: Choice, param: str) -> list[Image.Image]:
    """Return the frames `choose` picks; raises InvalidMedia about `param`."""
    if not any(content.startswith(mark, offset) for offset, mark in _SIGNATURES.values()):
        raise InvalidMedia(f"the clip isn't in a format that is taken: {', '.join(_SIGNATURES)}", param=param)
    try:
        return _decode(content, choose, param)
    except (decord.DECORDError, RuntimeError, OSError, ValueError, IndexError) as error:
        raise InvalidMedia("the clip can't be decoded; is it a whole file?", param=param) from error


def _decode(content: bytes, choose: Choice, param: str) -> list[Image.Image]:
    reader = decord.VideoReader(BytesIO(content), num_threads=1)
    if (num_frames := len(reader)) > MAX_FRAMES:
        raise InvalidMedia(f"the clip has {num_frames} frames; at most {MAX_FRAMES} are taken", param=param)
    indices = choose(num_frames, reader.get_avg_fps())
    height, width = reader[0].shape[:2]
    if height * width * len(indices) > MAX_PIXELS:
        raise InvalidMedia(f"the frames to be seen have more than {MAX_PIXELS} pixels together", param=param)
    return [Image.fromarray(frame) for frame in reader.get_batch(indices).asnumpy()]
