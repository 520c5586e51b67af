"""Bytes of one picture to RGB, within limits; knows no model, and runs in a decoding process only."""

import struct
import warnings
import zlib
from io import BytesIO

from PIL import ExifTags, Image

from shared.errors import InvalidMedia
from worker.prepare.limits import MediaLimits

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
"""Only these decoders ever see a client's bytes."""

warnings.filterwarnings("error", category=Image.DecompressionBombWarning)

TOO_LARGE = (Image.DecompressionBombWarning, Image.DecompressionBombError)
BROKEN = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    LookupError,
    TypeError,
    ArithmeticError,
    MemoryError,
    struct.error,
    zlib.error,
)
"""What PIL's decoders raise on bytes that aren't what they claim to be."""


def read_image(content: bytes, limits: MediaLimits) -> tuple[Image.Image, int]:
    """Return the picture as stored, as RGB without its alpha, and its EXIF orientation.

    Raises InvalidMedia; who asked knows its `param`.
    """
    Image.MAX_IMAGE_PIXELS = limits.max_image_pixels
    try:
        with Image.open(BytesIO(content), formats=FORMATS) as picture:
            check_size(3 * picture.width * picture.height, limits)
            return picture.convert("RGB"), _orientation(picture)
    except TOO_LARGE:
        raise InvalidMedia(f"the picture has more than {limits.max_image_pixels} pixels; send a smaller one") from None
    except BROKEN as error:
        names = ", ".join(FORMATS)
        raise InvalidMedia(f"the picture can't be decoded; is it a whole file in one of {names}?") from error


def check_size(num_bytes: int, limits: MediaLimits) -> None:
    """Refuse what is more than is left of a request's share, before it is decoded."""
    if num_bytes > limits.max_decoded_bytes:
        raise InvalidMedia(
            f"the request's media up to here are larger, decoded, than one request may have: this one takes {num_bytes}"
            f" bytes, and {limits.max_decoded_bytes} are left; send fewer or smaller ones"
        )


def _orientation(picture: Image.Image) -> int:
    try:
        orientation = picture.getexif().get(ExifTags.Base.Orientation, 1)
    except BROKEN:  # a broken note on a whole picture
        return 1
    return orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1
