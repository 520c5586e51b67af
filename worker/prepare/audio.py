"""Bytes of one recording to a mono signal, within limits; knows no model.

soundfile reads WAV, MP3 and OGG; PyAV reads AAC, containers, and FLAC, which soundfile can't read as streamed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from itertools import chain
from math import ceil

import av
import numpy as np
import soundfile

from shared.errors import InvalidMedia
from worker.prepare.resampler import resample

FORMATS = ("WAV", "FLAC", "MP3", "OGG", "M4A", "AAC", "MP4", "WebM")
MAX_S = 3600.0
MAX_CHANNELS = 16
MAX_SAMPLES = 2**26
"""Decoded at once, of all channels together: 256 MiB."""
MIN_RATE, MAX_RATE = 1_000, 384_000
"""Hz."""
MAX_PEAK = 1e6
"""Full scale is 1; what is this much louder, or no number at all, would break a model's arithmetic."""

_MARGIN_S = 1.0
"""Decoded beyond what is kept, so that the resampler's filter doesn't meet an end there."""
_BROKEN = (soundfile.SoundFileError, av.FFmpegError, OSError, RuntimeError, ValueError, LookupError, MemoryError)


@dataclass(frozen=True, slots=True)
class _Limits:
    """How much is read of a recording, and where errors about it point."""

    keep_s: float
    param: str

    def admit(self, rate: int, num_channels: int, duration_s: float) -> int:
        """Return how many samples of each channel to read; `duration_s` is 0 where the header doesn't say."""
        if not MIN_RATE <= rate <= MAX_RATE:
            raise self.refusal(f"has a rate of {rate} Hz; {MIN_RATE} to {MAX_RATE} are taken")
        if not 1 <= num_channels <= MAX_CHANNELS:
            raise self.refusal(f"has {num_channels} channels; at most {MAX_CHANNELS} are taken")
        if duration_s > MAX_S:
            raise self.refusal(f"is {duration_s:.1f} s long; at most {MAX_S:.0f} s are taken")
        wanted_s, most = self.keep_s + _MARGIN_S, MAX_SAMPLES // num_channels
        if min(wanted_s, duration_s) * rate > most:
            raise self.too_large()
        return min(ceil(wanted_s * rate), most)

    def check(self, samples: np.ndarray, rate: int) -> None:
        """Refuse what turned out longer than its header said."""
        if len(samples) > MAX_S * rate or samples.size > MAX_SAMPLES - samples.shape[1]:
            raise self.too_large()

    def too_large(self) -> InvalidMedia:
        return self.refusal(f"has more than {MAX_SAMPLES} samples in all its channels, or lasts over {MAX_S:.0f} s")

    def refusal(self, why: str) -> InvalidMedia:
        return InvalidMedia(f"the audio {why}", param=self.param)


_Reader = Callable[[bytes, _Limits], tuple[np.ndarray, int]]
"""Returns float32 samples, shape [samples, channels], and their rate in Hz."""


def decode_audio(content: bytes, rate: int, param: str, keep_s: float = MAX_S) -> np.ndarray:
    """Return the first `keep_s` seconds as one channel of float32 at `rate` Hz; raises InvalidMedia about `param`.

    Channels are averaged before the signal is resampled, as librosa does.
    """
    limits = _Limits(keep_s, param)
    if (read := _find_reader(content)) is None:
        raise limits.refusal(f"isn't in a format that is taken: {', '.join(FORMATS)}")
    try:
        samples, source = read(content, limits)
    except _BROKEN as error:
        raise limits.refusal("can't be decoded; is it a whole file?") from error
    limits.check(samples, source)
    if not len(samples):
        raise limits.refusal("has no samples")
    if not np.abs(samples).max() <= MAX_PEAK:  # nan is not less either
        raise limits.refusal("has samples that are no sound: floats must be numbers, 1 being full scale")
    return resample(samples.mean(axis=1), source, rate)[: round(keep_s * rate)]


def _read_recording(content: bytes, limits: _Limits) -> tuple[np.ndarray, int]:
    with soundfile.SoundFile(BytesIO(content)) as file:
        most = limits.admit(file.samplerate, file.channels, file.frames / file.samplerate)
        return file.read(most, dtype="float32", always_2d=True), file.samplerate


def _read_container(content: bytes, limits: _Limits, demuxer: str) -> tuple[np.ndarray, int]:
    with av.open(BytesIO(content), "r", format=demuxer) as container:
        if not container.streams.audio:
            raise limits.refusal("has no audio track")
        stream = container.streams.audio[0]
        rate, duration = stream.codec_context.sample_rate, container.duration
        most = limits.admit(rate, stream.codec_context.channels, duration / av.time_base if duration else 0.0)
        converter = av.AudioResampler(format="fltp", rate=rate)
        pieces: list[np.ndarray] = []
        for frame in chain(container.decode(stream), [None]):
            pieces += [piece.to_ndarray() for piece in converter.resample(frame)]
            if (most := most - (frame.samples if frame else 0)) <= 0:
                break
        return np.concatenate(pieces, axis=1).T, rate


def _find_reader(content: bytes) -> _Reader | None:
    """Return what reads a file that begins like this one; a playlist, which would open other files, is none."""
    match content[:4], content[4:8], content[8:12]:
        case (b"RIFF" | b"RIFX" | b"RF64", _, b"WAVE") | (b"OggS", _, _):
            return _read_recording
        case b"fLaC", _, _:
            return partial(_read_container, demuxer="flac")
        case _, b"ftyp", _:
            return partial(_read_container, demuxer="mov")
        case b"\x1aE\xdf\xa3", _, _:
            return partial(_read_container, demuxer="matroska")
    return _find_stream_reader(content)


def _find_stream_reader(content: bytes) -> _Reader | None:
    """Tell MP3 and AAC apart, whose files begin with a tag or with their first frame."""
    if content.startswith(b"ID3"):
        return _read_recording
    if len(content) < 2 or content[0] != 0xFF or content[1] & 0xE0 != 0xE0:
        return None
    is_aac = content[1] & 0xF6 == 0xF0  # ADTS: twelve bits of sync, layer 0
    return partial(_read_container, demuxer="aac") if is_aac else _read_recording
