"""Pictures of every kind, and bytes that only claim to be one."""

import io
import struct
import zlib

import pytest
from PIL import Image

from shared.errors import InvalidMedia
from tests.cases import INTERNVL2
from worker.prepare.limits import MediaLimits
from worker.prepare.media import decode_image

MAX_PIXELS = MediaLimits().max_image_pixels
PARAM = "messages[0].content[1]"


def encode(picture, kind, **options):
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def png_header(width, height):
    """A PNG that promises that many pixels and has none."""
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    end = struct.pack(">I", zlib.crc32(chunk)) + struct.pack(">I", 100) + b"IDAT"
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + end


def refused(content):
    with pytest.raises(InvalidMedia) as raised:
        decode_image(content, PARAM)
    assert raised.value.param == PARAM
    return raised.value.message


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1"])
def test_picture_of_every_format_becomes_rgb(kind, mode):
    picture = Image.new("RGB", (20, 10), "white").convert(mode)
    content = encode(picture.convert("L") if kind in {"JPEG", "WEBP"} else picture, kind)

    decoded = decode_image(content, PARAM)

    assert (decoded.mode, decoded.size) == ("RGB", (20, 10))
    assert decoded.getpixel((5, 5)) >= (250, 250, 250)


def test_alpha_is_dropped_and_rotation_ignored():
    rgba = Image.new("RGBA", (4, 4), (10, 20, 30, 0))
    content = (INTERNVL2 / "media" / "exif_rot6.jpg").read_bytes()

    assert decode_image(encode(rgba, "PNG"), PARAM).getpixel((0, 0)) == (10, 20, 30)
    with Image.open(io.BytesIO(content)) as rotated:
        assert decode_image(content, PARAM).size == rotated.size


@pytest.mark.parametrize("size", [(MAX_PIXELS + 1, 1), (20_000, 20_000), (65_535, 65_535)])
def test_picture_with_too_many_pixels_is_refused_by_its_header(size):
    assert "more than 178956970 pixels" in refused(png_header(*size))


def test_largest_picture_is_not_refused_for_its_size():
    assert "can't be decoded" in refused(png_header(MAX_PIXELS, 1))  # it has no pixels to decode


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no picture",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n",
        b"\x89PNG\r\n\x1a\n" + b"\0" * 100,
        b"GIF89a" + b"\xff" * 20,
        b"RIFF\xff\xff\xff\xffWEBPVP8 " + b"\0" * 50,
        b"II*\0" + b"\xff" * 100,
        b"BM" + b"\xff" * 100,
        b"\xff\xd8\xff\xe0" + b"\0" * 100,
    ],
)
def test_bytes_that_are_no_picture_are_refused(content):
    assert "can't be decoded" in refused(content)


@pytest.mark.parametrize("name", ["photo.jpg", "square.png", "palette.png", "rgba.png"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_half_a_picture_is_refused(name, share):
    content = (INTERNVL2 / "media" / name).read_bytes()

    assert "whole file" in refused(content[: int(len(content) * share)])


def test_format_that_is_not_named_is_refused():
    assert "JPEG, PNG, WEBP, GIF, BMP, TIFF" in refused(encode(Image.new("RGB", (8, 8)), "PPM"))
