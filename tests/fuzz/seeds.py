"""Small real files of every format that is taken, made here so that none has to be kept."""

import io
from functools import cache

import av
import numpy as np
import soundfile
from PIL import Image

from shared.job import MediaKind

_COLOURS = np.random.default_rng(7).integers(0, 255, (6, 8, 3), np.uint8)
_PICTURE = Image.fromarray(_COLOURS).resize((32, 24), Image.Resampling.BICUBIC)
_TONE = (0.3 * np.sin(np.arange(4000) / 6)).astype(np.float32)


@cache
def seeds() -> tuple[tuple[MediaKind, str, bytes], ...]:
    """Every seed: what it is, its name, its bytes."""
    pictures = (
        _saved("JPEG"),
        _saved("JPEG", progressive=True, exif=_exif()),
        _saved("PNG"),
        _saved("PNG", picture=_PICTURE.convert("P")),
        _saved("PNG", picture=_PICTURE.convert("RGBA"), exif=_exif()),
        _saved("WEBP"),
        _saved("WEBP", lossless=True),
        _saved("GIF"),
        _saved("BMP"),
        *(_saved("TIFF", compression=kind) for kind in ("raw", "tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits")),
    )
    animations = (_saved("GIF", **_animated()), _saved("WEBP", **_animated()))
    clips = tuple(_clip(*kind) for kind in _CLIPS)
    sounds = (*(_sound(*kind) for kind in _SOUNDS), *(_track(*kind) for kind in _TRACKS))
    return (
        *((MediaKind.IMAGE, *seed) for seed in pictures),
        *((MediaKind.VIDEO, *seed) for seed in (*animations, *clips)),
        *((MediaKind.AUDIO, *seed) for seed in sounds),
    )


_CLIPS = (
    ("mp4", "libx264"),
    ("mp4", "mpeg4"),
    ("mov", "libx264"),
    ("matroska", "libx264"),
    ("webm", "libvpx"),
    ("avi", "mjpeg"),
)
_SOUNDS = (
    ("WAV", "PCM_16"),
    ("WAV", "FLOAT"),
    ("WAV", "IMA_ADPCM"),
    ("RF64", None),
    ("FLAC", None),
    ("MP3", None),
    ("OGG", "VORBIS"),
    ("OGG", "OPUS"),
)
_TRACKS = (("ipod", "aac"), ("adts", "aac"), ("mov", "alac"), ("webm", "libopus"))


def _exif() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def _animated() -> dict[str, object]:
    return {"save_all": True, "append_images": [_PICTURE.rotate(90 * turn) for turn in range(1, 4)], "duration": 100}


def _saved(kind: str, picture: Image.Image = _PICTURE, **options: object) -> tuple[str, bytes]:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return f"{kind} {' '.join(options)}", file.getvalue()


def _clip(kind: str, codec: str) -> tuple[str, bytes]:
    file = io.BytesIO()
    with av.open(file, "w", format=kind) as container:
        stream = container.add_stream(codec, rate=10)
        stream.width, stream.height = 32, 24
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        for turn in range(6):
            frame = av.VideoFrame.from_image(_PICTURE.rotate(30 * turn))
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return f"{kind} {codec}", file.getvalue()


def _sound(kind: str, subtype: str | None) -> tuple[str, bytes]:
    file = io.BytesIO()
    soundfile.write(file, _TONE, 16_000, format=kind, subtype=subtype)
    return f"{kind} {subtype}", file.getvalue()


def _track(kind: str, codec: str) -> tuple[str, bytes]:
    file = io.BytesIO()
    with av.open(file, "w", format=kind) as container:
        stream = container.add_stream(codec, rate=48_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(_TONE[None, :].copy(), format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 48_000, 0
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    return f"{kind} {codec}", file.getvalue()
