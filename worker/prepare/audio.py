"""Bytes of one recording to a mono signal, within limits; knows no model, and runs in a decoding process only.

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
from worker.prepare.image import check_size
from worker.prepare.limits import MediaLimits
from worker.prepare.track import codec_of

CODECS = ("aac", "mp3", "opus", "vorbis", "flac", "alac", "pcm_s16le", "pcm_s16be", "pcm_s24le", "pcm_f32le")
"""In containers."""
FORMATS = ("WAV", "FLAC", "MP3", "OGG", "M4A", "AAC", "MP4", "WebM")
MIN_RATE, MAX_RATE = 1_000, 384_000
"""Hz."""
MAX_PEAK = 1e6
"""Full scale is 1; what is this much louder, or no number at all, would break a model's arithmetic."""

_MARGIN_S = 1.0
"""Decoded beyond what is kept, so that the resampler's filter doesn't meet an end there."""
_BROKEN = (soundfile.SoundFileError, av.FFmpegError, OSError, RuntimeError, ValueError, LookupError, MemoryError)


@dataclass(frozen=True, slots=True)
class _Limits:
    """How much is read of a recording, and what is refused."""

    most: MediaLimits
    keep_s: float

    def admit(self, rate: int, num_channels: int, duration_s: float) -> int:
        """Return how many samples of each channel to read; `duration_s` is 0 where the header doesn't say."""
        if not MIN_RATE <= rate <= MAX_RATE:
            raise self.refusal(f"has a rate of {rate} Hz; {MIN_RATE} to {MAX_RATE} are taken")
        if not 1 <= num_channels <= self.most.max_audio_channels:
            raise self.refusal(f"has {num_channels} channels; at most {self.most.max_audio_channels} are taken")
        if duration_s > self.most.max_audio_s:
            raise self.refusal(f"is {duration_s:.1f} s long; at most {self.most.max_audio_s:.0f} s are taken")
        wanted_s, most = self.keep_s + _MARGIN_S, self.most.max_audio_samples // num_channels
        if min(wanted_s, duration_s) * rate > most:
            raise self.too_large()
        check_size(4 * int(min(wanted_s, duration_s) * rate), self.most)
        return min(ceil(wanted_s * rate), most)

    def check(self, samples: np.ndarray, rate: int) -> None:
        """Refuse what turned out longer than its header said."""
        most = self.most
        if len(samples) > most.max_audio_s * rate or samples.size > most.max_audio_samples - samples.shape[1]:
            raise self.too_large()
        check_size(4 * len(samples), most)

    def too_large(self) -> InvalidMedia:
        return self.refusal(
            f"has more than {self.most.max_audio_samples} samples in all its channels, "
            f"or lasts over {self.most.max_audio_s:.0f} s; send less of it"
        )

    def refusal(self, why: str) -> InvalidMedia:
        return InvalidMedia(f"the audio {why}")


_Reader = Callable[[bytes, _Limits], tuple[np.ndarray, int]]
"""Returns float32 samples, shape [samples, channels], and their rate in Hz."""


def read_audio(content: bytes, keep_s: float, limits: MediaLimits) -> tuple[np.ndarray, int]:
    """Return the first `keep_s` seconds or a little more, its channels averaged, as float32, and its rate in Hz.

    Raises InvalidMedia.
    """
    bounds = _Limits(limits, keep_s)
    if (read := _find_reader(content)) is None:
        raise bounds.refusal(f"isn't in a format that is taken: {', '.join(FORMATS)}")
    try:
        samples, rate = read(content, bounds)
    except _BROKEN as error:
        raise bounds.refusal("can't be decoded; is it a whole file?") from error
    bounds.check(samples, rate)
    if not len(samples):
        raise bounds.refusal("has no samples")
    if not np.abs(samples).max() <= MAX_PEAK:  # nan is not less either
        raise bounds.refusal("has samples that are no sound: floats must be numbers, 1 being full scale")
    return samples.mean(axis=1), rate


def _read_recording(content: bytes, limits: _Limits) -> tuple[np.ndarray, int]:
    with soundfile.SoundFile(BytesIO(content)) as file:
        most = limits.admit(file.samplerate, file.channels, file.frames / file.samplerate)
        return file.read(most, dtype="float32", always_2d=True), file.samplerate


def _read_container(content: bytes, limits: _Limits, demuxer: str) -> tuple[np.ndarray, int]:
    with av.open(BytesIO(content), "r", format=demuxer) as container:
        if not container.streams.audio:
            raise limits.refusal("has no audio track")
        stream = container.streams.audio[0]
        if (codec := codec_of(stream)) not in CODECS:
            raise limits.refusal(f"has the codec {codec}; taken in containers are {', '.join(CODECS)}")
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
