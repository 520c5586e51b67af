"""Less of a picture or a clip than there is, where a request wishes it; knows no model."""

import math

from PIL import Image

MAX_SEEN = 64
"""Most frames that a wished rate makes of a clip, where a model has no limit of its own."""


def shrink(picture: Image.Image, max_pixels: int | None) -> Image.Image:
    """Return the picture with at most this many pixels, in its own shape; as ms-swift does with its `max_pixels`."""
    width, height = picture.size
    if max_pixels is None or width * height <= max_pixels:
        return picture
    scale = math.sqrt(max_pixels / (width * height))
    size = max(int(width * scale), 1), max(int(height * scale), 1)
    return picture.resize(size, Image.Resampling.BILINEAR)


def num_at_rate(num_frames: int, rate: float, fps: float, most: int = MAX_SEEN) -> int:
    """Return how many of a clip's frames, `rate` a second, are seen at `fps`: at least one, and no more than `most`."""
    return max(min(int(num_frames / rate * fps), num_frames, most), 1)
