"""Pictures, frames and signals from the bytes of strangers, as the model families take them."""

import numpy as np
from PIL import ExifTags, Image

from worker.prepare.channel import Pictures, ReadAudio, ReadFrames, ReadImage
from worker.prepare.decoder import Choice, current_decoder
from worker.prepare.resampler import resample


def decode_image(content: bytes, param: str) -> Image.Image:
    """Return the picture as RGB as it is stored, its EXIF rotation noted but not applied, and without its alpha.

    Raises InvalidMedia about `param`.
    """
    decoder = current_decoder()
    answer, payload = decoder.decode(ReadImage(decoder.limits), content, param)
    (picture,) = _pictures(answer, payload)
    if answer.orientation != 1:
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = answer.orientation
        picture.info["exif"] = exif.tobytes()
    if answer.transparency is not None:  # a processor may lay it over white
        picture.info["transparency"] = answer.transparency
    return picture


def decode_frames(content: bytes, choose: Choice, param: str) -> list[Image.Image]:
    """Return the frames `choose` picks; raises InvalidMedia about `param`."""
    decoder = current_decoder()
    answer, payload = decoder.decode(ReadFrames(decoder.limits), content, param, choose)
    return _pictures(answer, payload)


def decode_audio(content: bytes, rate: int, param: str, keep_s: float = 3600.0) -> np.ndarray:
    """Return the first `keep_s` seconds as one channel of float32 at `rate` Hz; raises InvalidMedia about `param`.

    Channels are averaged before the signal is resampled, as librosa does.
    """
    decoder = current_decoder()
    answer, payload = decoder.decode(ReadAudio(decoder.limits, keep_s), content, param)
    return resample(np.frombuffer(payload, np.float32), answer.rate, rate)[: round(keep_s * rate)]


def _pictures(answer: Pictures, payload: memoryview) -> list[Image.Image]:
    pixels = np.frombuffer(payload, np.uint8)
    ends = np.cumsum([3 * width * height for width, height in answer.sizes])
    pieces = np.split(pixels, ends[:-1])
    return [
        Image.fromarray(piece.reshape(height, width, 3))
        for piece, (width, height) in zip(pieces, answer.sizes, strict=True)
    ]
