"""Rates: the length librosa gives, and one signal whichever library computes it."""

import numpy as np
import pytest
import soundfile

from tests.cases import QWEN2_AUDIO
from worker.prepare import resampler
from worker.prepare.resampler import resample

RATES = (8_000, 11_025, 22_050, 24_000, 32_000, 44_100, 48_000, 96_000)


def voice():
    return soundfile.read(QWEN2_AUDIO / "media" / "speech.wav", dtype="float32")[0]


@pytest.mark.parametrize("source", [*RATES, 44_101])
@pytest.mark.parametrize("length", [1, 3, 440, 441, 10_007])
def test_length_is_that_of_the_time_rounded_up(source, length):
    resampled = resample(np.ones(length, np.float32), source, 16_000)

    assert resampled.dtype == np.float32
    assert len(resampled) == int(np.ceil(length * (16_000 / source)))


def test_same_rate_changes_nothing():
    assert resample(voice(), 16_000, 16_000).tobytes() == voice().tobytes()


@pytest.mark.parametrize("source", RATES)
def test_torchaudio_gives_nearly_what_soxr_gives(source, monkeypatch):
    if resampler._load_torchaudio() is None:
        pytest.skip("torchaudio can't be imported: it is linked to CUDA")
    by_torchaudio = resample(voice(), source, 16_000)
    monkeypatch.setattr(resampler, "_load_torchaudio", lambda: None)
    by_soxr = resample(voice(), source, 16_000)

    assert len(by_torchaudio) == len(by_soxr)
    error = by_torchaudio - by_soxr
    assert np.sqrt((error**2).mean()) < 1e-3 * np.sqrt((by_soxr**2).mean())
    assert not np.array_equal(by_torchaudio, by_soxr)


def test_odd_rates_are_left_to_soxr(monkeypatch):
    """torchaudio would allocate a filter for each of 16000 phases."""
    by_soxr = resample(voice(), 44_101, 16_000)
    monkeypatch.setattr(resampler, "_load_torchaudio", lambda: pytest.fail)

    assert resample(voice(), 44_101, 16_000).tobytes() == by_soxr.tobytes()
