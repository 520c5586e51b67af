"""Bytes of one picture to RGB, within limits; knows no model."""

import struct
import warnings
from io import BytesIO

from PIL import Image

from shared.errors import InvalidMedia

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
"""Only these decoders ever see a client's bytes."""
MAX_PIXELS = 178_956_970
"""Width times height, read from the header before anything is decoded."""

Image.MAX_IMAGE_PIXELS = MAX_PIXELS
warnings.filterwarnings("error", category=Image.DecompressionBombWarning)

_TOO_LARGE = (Image.DecompressionBombWarning, Image.DecompressionBombError)
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
)
"""What PIL's decoders raise on bytes that aren't what they claim to be."""


def decode_image(content: bytes, param: str) -> Image.Image:
    """Return the picture as stored, without its EXIF rotation and its alpha; raises InvalidMedia about `param`."""
    try:
        with Image.open(BytesIO(content), formats=FORMATS) as picture:
            return picture.convert("RGB")
    except _TOO_LARGE:
        raise InvalidMedia(f"the picture has more than {MAX_PIXELS} pixels", param=param) from None
    except BROKEN as error:
        names = ", ".join(FORMATS)
        raise InvalidMedia(
            f"the picture can't be decoded; is it a whole file in one of {names}?", param=param
        ) from error
