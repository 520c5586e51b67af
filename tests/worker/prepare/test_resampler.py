"""Rates: the length librosa gives, and nearly one signal whichever library computes it."""

import sys
from importlib.util import find_spec
from math import ceil
from types import ModuleType

import numpy as np
import pytest
import soundfile
import torch

from tests.cases import QWEN2_AUDIO
from worker.prepare import resampler
from worker.prepare.resampler import resample

RATES = (8_000, 11_025, 22_050, 24_000, 32_000, 44_100, 48_000, 96_000)


def voice():
    return soundfile.read(QWEN2_AUDIO / "media" / "speech.wav", dtype="float32")[0]


def windowed_sinc(signal, source, target, *, resampling_method, lowpass_filter_width, rolloff, beta):
    """What torchaudio documents to compute: band-limited interpolation with a sinc under a Kaiser window."""
    assert resampling_method == "sinc_interp_kaiser"
    cutoff = min(source, target) * rolloff  # Hz, twice the highest frequency kept
    reach_s = lowpass_filter_width / cutoff
    padded = np.pad(signal.numpy().astype(float), ceil(reach_s * source) + 1)
    wanted_s = np.arange(ceil(len(signal) * target / source)) / target
    first = np.ceil((wanted_s - reach_s) * source).astype(int)
    places = first[:, None] + np.arange(int(2 * reach_s * source) + 1)
    t = (wanted_s[:, None] - places / source) * cutoff  # in zero crossings
    window = np.i0(beta * np.sqrt(np.clip(1 - (t / lowpass_filter_width) ** 2, 0, None))) / np.i0(beta)
    filtered = padded[places + ceil(reach_s * source) + 1] * np.sinc(t) * window
    return torch.from_numpy((filtered.sum(1) * cutoff / source).astype(np.float32))


@pytest.fixture
def without_soxr(monkeypatch):
    """A machine for which there is no soxr; torchaudio is its own where it can be imported, else what it documents."""
    monkeypatch.setitem(sys.modules, "soxr", None)
    if sys.modules.get("torchaudio") is None or find_spec("torchaudio") is None:
        functional = ModuleType("torchaudio.functional")
        functional.resample = windowed_sinc
        monkeypatch.setitem(sys.modules, "torchaudio", ModuleType("torchaudio"))
        monkeypatch.setitem(sys.modules, "torchaudio.functional", functional)
    resampler._load.cache_clear()
    yield
    resampler._load.cache_clear()


@pytest.mark.parametrize("source", [*RATES, 44_101])
@pytest.mark.parametrize("length", [1, 3, 440, 441, 10_007])
def test_length_is_that_of_the_time_rounded_up(source, length):
    resampled = resample(np.ones(length, np.float32), source, 16_000)

    assert resampled.dtype == np.float32
    assert len(resampled) == int(np.ceil(length * (16_000 / source)))


def test_same_rate_changes_nothing():
    assert resample(voice(), 16_000, 16_000).tobytes() == voice().tobytes()


WORDS = voice()[:16_000] * np.hanning(16_000).astype(np.float32)
"""Without edges, which the two treat in ways of their own."""
BY_SOXR = {source: resample(WORDS, source, 16_000) for source in RATES}


@pytest.mark.usefixtures("without_soxr")
@pytest.mark.parametrize("source", RATES)
def test_torchaudio_takes_over_with_nearly_the_same_signal(source):
    by_torchaudio = resample(WORDS, source, 16_000)

    assert by_torchaudio.dtype == np.float32
    assert len(by_torchaudio) == len(BY_SOXR[source])
    error = by_torchaudio - BY_SOXR[source]
    assert np.sqrt((error**2).mean()) < 5e-4 * np.sqrt((BY_SOXR[source] ** 2).mean())
    assert not np.array_equal(by_torchaudio, BY_SOXR[source])


@pytest.mark.usefixtures("without_soxr")
def test_torchaudio_holds_no_more_filters_for_odd_rates_than_it_can(monkeypatch):
    asked = []
    compute = sys.modules["torchaudio.functional"].resample
    monkeypatch.setattr(
        sys.modules["torchaudio.functional"],
        "resample",
        lambda signal, *rates, **options: asked.append(rates) or compute(signal, *rates, **options),
    )

    resampled = resample(voice()[:16_000], 44_101, 16_000)

    assert len(resampled) == ceil(16_000 * (16_000 / 44_101))
    assert np.abs(resampled - resample(voice()[:16_000], 44_100, 16_000)[: len(resampled)]).max() < 0.3
    (odd, even) = asked
    assert max(odd[1], even[1]) <= 1000
    assert odd[0] / odd[1] == pytest.approx(44_101 / 16_000, rel=1e-6)


def test_machine_with_neither_says_what_it_lacks(monkeypatch):
    monkeypatch.setitem(sys.modules, "soxr", None)
    monkeypatch.setitem(sys.modules, "torchaudio", None)
    resampler._load.cache_clear()

    with pytest.raises(ImportError, match="torchaudio"):
        resample(voice(), 8_000, 16_000)
