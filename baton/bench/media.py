"""Pictures, recordings and clips drawn on the spot, each from a seed; their libraries are imported when needed."""

import base64
from io import BytesIO
from typing import TYPE_CHECKING, Any

from baton.bench.quantity import Size

if TYPE_CHECKING:
    import numpy as np

SAMPLE_RATE = 16_000
BLOCK = 16
"""Pixels of one patch of colour: enough detail that files are about as large as photographs'."""


def picture(seed: int, size: Size, format: str) -> dict[str, Any]:  # noqa: A002 - Pillow's name
    """Return a picture as OpenAI's part."""
    from PIL import Image

    buffer = BytesIO()
    Image.fromarray(_pixels(seed, size)).save(buffer, format=format)
    return {"type": "image_url", "image_url": {"url": _uri(f"image/{format}", buffer)}}


def recording(seed: int, length_s: float) -> dict[str, Any]:
    """Return a recording as OpenAI's part: three tones that come and go."""
    import numpy as np
    import soundfile

    draws = np.random.default_rng(seed)
    times = np.arange(int(length_s * SAMPLE_RATE)) / SAMPLE_RATE
    pitches, tempos = draws.uniform(600, 12_000, (3, 1)), draws.uniform(0.5, 4, (3, 1))
    tones = np.sin(times * pitches) * np.sin(times * tempos)
    buffer = BytesIO()
    soundfile.write(buffer, tones.sum(axis=0) / 4, SAMPLE_RATE, format="WAV", subtype="PCM_16")
    return {"type": "input_audio", "input_audio": {"data": _base64(buffer), "format": "wav"}}


def clip(seed: int, length_s: float, size: Size, fps: int) -> dict[str, Any]:
    """Return a clip as OpenAI's part: a picture that moves sideways."""
    import av
    import numpy as np

    still = _pixels(seed, size)
    buffer = BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        track = container.add_stream("mpeg4", rate=fps)
        track.width, track.height, track.pix_fmt = size.width, size.height, "yuv420p"
        for index in range(max(1, round(length_s * fps))):
            frame = av.VideoFrame.from_ndarray(np.roll(still, 2 * index, axis=1), format="rgb24")
            container.mux(track.encode(frame))
        container.mux(track.encode())
    return {"type": "video_url", "video_url": {"url": _uri("video/mp4", buffer)}}


def _pixels(seed: int, size: Size) -> "np.ndarray[Any, np.dtype[np.uint8]]":
    """Return random patches with a little grain, shape [height, width, 3]."""
    import numpy as np

    draws = np.random.default_rng(seed)
    rows, columns = -(-size.height // BLOCK), -(-size.width // BLOCK)
    patches = draws.integers(16, 240, (rows, columns, 3), dtype=np.uint8)
    large = patches.repeat(BLOCK, axis=0).repeat(BLOCK, axis=1)[: size.height, : size.width]
    return large + draws.integers(0, 16, large.shape, dtype=np.uint8)


def _uri(kind: str, buffer: BytesIO) -> str:
    return f"data:{kind};base64,{_base64(buffer)}"


def _base64(buffer: BytesIO) -> str:
    return base64.b64encode(buffer.getvalue()).decode()
