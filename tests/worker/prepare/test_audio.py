"""Recordings: every format to one signal, limits before anything is decoded, and bytes that only claim to be sound."""

import io
import struct

import av
import numpy as np
import pytest
import soundfile

from shared.errors import InvalidMedia
from tests.cases import INTERNVL2, QWEN2_AUDIO
from worker.prepare.decoder import one_request
from worker.prepare.limits import MediaLimits
from worker.prepare.media import decode_audio

PARAM = "messages[0].content[0].audio_url"
RATE = 16_000
SPEECH = (QWEN2_AUDIO / "media" / "speech.wav").read_bytes()


def tone(rate, num_s=1.0, channels=1, hertz=440.0):
    """A sine, shape [samples, channels]; the second channel is silent."""
    wave = 0.3 * np.sin(2 * np.pi * hertz * np.arange(round(num_s * rate)) / rate, dtype=np.float64)
    return np.stack([wave if channel == 0 else 0 * wave for channel in range(channels)], axis=1).astype(np.float32)


def recorded(samples, rate=RATE, kind="WAV", subtype=None):
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=kind, subtype=subtype)
    return file.getvalue()


def contained(kind, codec, rate=48_000, num_s=1.0):
    file = io.BytesIO()
    with av.open(file, "w", format=kind) as container:
        stream = container.add_stream(codec, rate=rate, layout="mono")
        frame = av.AudioFrame.from_ndarray(tone(rate, num_s).T.copy(), format="fltp", layout="mono")
        frame.sample_rate, frame.pts = rate, 0
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    return file.getvalue()


def refused(content, **given):
    with pytest.raises(InvalidMedia) as raised:
        decode_audio(content, RATE, PARAM, **given)
    assert raised.value.param == PARAM
    return raised.value.message


def loudness_at(signal, hertz):
    """How much of a tone a signal holds, whatever its phase: 0.3 for `tone`'s own."""
    turning = np.exp(-2j * np.pi * hertz * np.arange(len(signal)) / RATE)
    return abs((signal * turning).mean()) * 2


@pytest.mark.parametrize(
    "content",
    [
        *(recorded(tone(rate), rate) for rate in (8_000, 11_025, 22_050, 44_101, 96_000)),
        *(recorded(tone(44_100), 44_100, "WAV", subtype) for subtype in ("PCM_U8", "PCM_24", "FLOAT", "ULAW")),
        recorded(tone(44_100), 44_100, "RF64"),
        recorded(tone(44_100), 44_100, "FLAC"),
        recorded(tone(44_100), 44_100, "MP3"),
        recorded(tone(44_100), 44_100, "OGG", "VORBIS"),
        recorded(tone(48_000), 48_000, "OGG", "OPUS"),
        b"ID3\x03\x00\x00\x00\x00\x00\x64" + bytes(100) + recorded(tone(44_100), 44_100, "MP3"),
        *(contained(*kind) for kind in (("ipod", "aac"), ("mp4", "aac"), ("mov", "aac"), ("adts", "aac"))),
        contained("mp4", "alac"),
        contained("webm", "libopus"),
        contained("matroska", "aac"),
    ],
    ids=lambda content: f"{content[:12]!r} {len(content)}",
)
def test_every_format_and_rate_gives_the_same_tone(content):
    signal = decode_audio(content, RATE, PARAM)

    assert signal.dtype == np.float32
    assert signal.ndim == 1
    assert len(signal) == pytest.approx(RATE, abs=RATE // 25)  # AAC is padded to whole frames
    assert loudness_at(signal[2000:14_000], 440) == pytest.approx(0.3, abs=0.01)
    assert loudness_at(signal[2000:14_000], 880) < 0.01


def test_channels_are_averaged():
    stereo = decode_audio(recorded(tone(RATE, channels=2), subtype="FLOAT"), RATE, PARAM)

    np.testing.assert_allclose(stereo, tone(RATE)[:, 0] / 2, atol=1e-6)


def test_start_of_a_long_recording_is_what_the_whole_begins_with():
    content = recorded(np.random.default_rng(0).uniform(-0.5, 0.5, 44_100 * 4).astype(np.float32), 44_100)

    start = decode_audio(content, RATE, PARAM, keep_s=1.5)

    assert len(start) == 24_000
    np.testing.assert_allclose(start, decode_audio(content, RATE, PARAM)[:24_000], atol=1e-5)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff",
        b"no sound",
        (INTERNVL2 / "media" / "photo.jpg").read_bytes(),
        b"RIFF\x00\x00\x00\x00AVI ",
        b"#EXTM3U\n#EXTINF:1,\nfile:///etc/hostname\n",
        b"ffconcat version 1.0\nfile /etc/hostname\n",
        b"FORM\x00\x00\x00\x00AIFF",
    ],
)
def test_what_is_no_sound_never_reaches_a_decoder(content, capfd):
    assert "WAV, FLAC, MP3, OGG, M4A, AAC, MP4, WebM" in refused(content)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    "content",
    [
        SPEECH[:20],
        recorded(tone(RATE), kind="FLAC")[:500],
        recorded(tone(RATE), kind="OGG")[:500],
        recorded(tone(RATE), kind="MP3")[:40],
        contained("ipod", "aac")[:2000],
        contained("webm", "libopus")[:30],
        b"\x00\x00\x00\x20ftypM4A " + bytes(100),
        b"OggS" + bytes(100),
    ],
    ids=lambda content: f"{content[:12]!r} {len(content)}",
)
def test_broken_recording_is_refused(content):
    assert "can't be decoded" in refused(content)


def test_clip_without_sound_says_so():
    assert "no audio track" in refused((INTERNVL2 / "media" / "clip.mp4").read_bytes())


def test_recording_without_samples_is_refused():
    assert "no samples" in refused(recorded(np.zeros((0, 1), np.float32)))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30])
def test_samples_that_are_no_sound_are_refused(value):
    assert "no sound" in refused(recorded(np.array([0.1, value, 0.1], np.float32), subtype="FLOAT"))


def header(rate, channels, num_bytes=0xFFFFFFFF):
    """A WAV that claims more than it holds."""
    form = struct.pack("<HHIIHH", 1, channels, rate, rate * channels * 2, channels * 2, 16)
    return b"RIFF\xff\xff\xff\xffWAVEfmt \x10\x00\x00\x00" + form + b"data" + struct.pack("<I", num_bytes) + bytes(640)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (header(RATE, 17), "the audio has 17 channels; at most 16 are taken"),
        (b"\xff\xf1" + bytes(100), "the audio has a rate of 0 Hz; 1000 to 384000 are taken"),
        (header(999, 1), "the audio has a rate of 999 Hz; 1000 to 384000 are taken"),
        (header(400_000, 1), "the audio has a rate of 400000 Hz; 1000 to 384000 are taken"),
    ],
)
def test_limits_of_the_header_hold(content, message):
    assert refused(content) == message


def streamed_flac():
    """As a recorder that can't go back to its header leaves it: the number of samples is 0."""
    content = bytearray(recorded(tone(RATE), kind="FLAC"))
    content[21] &= 0xF0
    content[22:26] = bytes(4)
    return bytes(content)


@pytest.mark.parametrize(("content", "length"), [(header(RATE, 1), 320), (streamed_flac(), RATE)])
def test_recording_that_was_never_closed_is_read_to_its_end(content, length):
    assert len(decode_audio(content, RATE, PARAM)) == length


@pytest.mark.parametrize(
    "content", [SPEECH, contained("ipod", "aac", num_s=3.0), contained("webm", "libopus", num_s=3.0)]
)
def test_limits_on_length_and_size_hold_before_decoding(content):
    with one_request(MediaLimits(max_audio_s=2.0)):
        assert refused(content, keep_s=1).startswith("the audio is ")
    with one_request(MediaLimits(max_audio_samples=20_000)):
        assert "more than 20000 samples" in refused(content)
    with one_request(MediaLimits(max_audio_samples=100_000)):
        assert len(decode_audio(content, RATE, PARAM, keep_s=1)) == RATE


def test_recording_that_does_not_say_its_length_is_limited_as_well():
    content = contained("webm", "libopus", num_s=3.0)
    at = content.index(b"\x44\x89\x88")  # Matroska's Duration; 0 is none
    content = content[: at + 3] + bytes(8) + content[at + 11 :]
    assert len(decode_audio(content, RATE, PARAM)) == pytest.approx(3 * RATE, abs=1000)

    with one_request(MediaLimits(max_audio_samples=20_000)):
        assert "more than 20000 samples" in refused(content)
