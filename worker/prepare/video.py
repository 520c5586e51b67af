"""Bytes of one clip to the frames a model asks for, within limits.

Knows no model, and runs in a decoding process only.
"""

from collections.abc import Callable, Sequence
from io import BytesIO

import av
import decord
import numpy as np
from PIL import Image

from shared.errors import InvalidMedia
from worker.prepare.image import BROKEN, TOO_LARGE, check_size
from worker.prepare.limits import MediaLimits
from worker.prepare.track import codec_of

DEFAULT_FRAME_MS = 100
"""What browsers show a frame for whose animation doesn't say."""

_CONTAINERS = ("MP4 or MOV", "WebM or Matroska", "AVI")
_ANIMATIONS = ("GIF", "WebP")
CODECS = ("h264", "hevc", "vp8", "vp9", "av1", "mpeg4", "mpeg2video", "mpeg1video", "msmpeg4v3", "theora", "mjpeg")
"""Of the hundreds that FFmpeg has; those are the ones that cameras and browsers write."""
_BRANDS_OF_PICTURES = (b"jp2", b"jpx", b"jpm", b"jxl", b"avif", b"avis", b"mif1", b"heic", b"heix", b"crx")
"""Files that begin as MP4 does, and that FFmpeg would take for one only if nothing else in them looks like more."""

Choice = Callable[[int, float], Sequence[int]]
"""The indices of the frames to be seen, given how many there are and how many a second has on average."""


def read_frames(content: bytes, choose: Choice, limits: MediaLimits) -> list[np.ndarray]:
    """Return the frames `choose` picks, each of shape [height, width, 3]; raises InvalidMedia."""
    Image.MAX_IMAGE_PIXELS = limits.max_video_pixels
    try:
        if is_container(content):
            return _read_container(content, choose, limits)
        if _is_animation(content):
            return _read_animation(content, choose, limits)
    except TOO_LARGE:
        raise InvalidMedia(f"a frame of the clip has more than {limits.max_video_pixels} pixels") from None
    except (decord.DECORDError, av.FFmpegError, RuntimeError, *BROKEN) as error:
        raise InvalidMedia("the clip can't be decoded; is it a whole file?") from error
    taken = ", ".join((*_CONTAINERS, *_ANIMATIONS))
    raise InvalidMedia(f"the clip isn't in a format that is taken: {taken}")


def is_container(content: bytes) -> bool:
    """Whether a file begins as the containers do; a playlist, which would make FFmpeg open other files, does not."""
    match content[:4], content[4:8], content[8:12]:
        case _, b"ftyp", brand:
            return not brand.startswith(_BRANDS_OF_PICTURES)
        case (b"\x1aE\xdf\xa3", _, _) | (b"RIFF", _, b"AVI "):
            return True
    return False


def _is_animation(content: bytes) -> bool:
    return content[:4] == b"GIF8" or (content[:4], content[8:12]) == (b"RIFF", b"WEBP")


def _read_container(content: bytes, choose: Choice, limits: MediaLimits) -> list[np.ndarray]:
    _check_header(content, limits)
    reader = decord.VideoReader(BytesIO(content), num_threads=1)
    _check_length(len(reader), limits)
    indices = choose(len(reader), reader.get_avg_fps())
    height, width = reader[0].shape[:2]
    _check_pixels(width * height * len(indices), limits)
    return list(reader.get_batch(indices).asnumpy())


def _check_header(content: bytes, limits: MediaLimits) -> None:
    """Refuse codecs that aren't named, and frames that are too large, before anything is decoded."""
    with av.open(BytesIO(content), "r", format=_demuxer(content)) as container:
        if not container.streams.video:
            raise InvalidMedia("the clip can't be decoded: it has no video track; is it a whole file?")
        track = container.streams.video[0]
        if (codec := codec_of(track)) not in CODECS:
            raise InvalidMedia(f"the clip's codec is {codec}; taken are {', '.join(CODECS)}")
        _check_pixels(track.codec_context.width * track.codec_context.height, limits)


def _demuxer(content: bytes) -> str:
    if content[4:8] == b"ftyp":
        return "mov"
    return "avi" if content[:4] == b"RIFF" else "matroska"


def _read_animation(content: bytes, choose: Choice, limits: MediaLimits) -> list[np.ndarray]:
    with Image.open(BytesIO(content), formats=tuple(name.upper() for name in _ANIMATIONS)) as animation:
        num_frames: int = getattr(animation, "n_frames", 1)
        _check_length(num_frames, limits)
        animation.load()  # WebP tells a frame's duration only then
        indices = choose(num_frames, 1000 / (animation.info.get("duration") or DEFAULT_FRAME_MS))
        _check_pixels(animation.width * animation.height * len(indices), limits)
        return [_frame(animation, index) for index in indices]


def _frame(animation: Image.Image, index: int) -> np.ndarray:
    animation.seek(index)
    return np.asarray(animation.convert("RGB"))


def _check_length(num_frames: int, limits: MediaLimits) -> None:
    if num_frames > limits.max_video_frames:
        raise InvalidMedia(f"the clip has {num_frames} frames; at most {limits.max_video_frames} are taken")


def _check_pixels(num_pixels: int, limits: MediaLimits) -> None:
    if num_pixels > limits.max_video_pixels:
        raise InvalidMedia(f"the frames to be seen have more than {limits.max_video_pixels} pixels together")
    check_size(3 * num_pixels, limits)
