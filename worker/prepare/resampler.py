"""A signal at another sampling rate, as the authors' loaders have it: by soxr's high quality.

torchaudio takes over where soxr can't be imported: the two differ in the last twentieth of the band.
"""

from collections.abc import Callable
from fractions import Fraction
from functools import cache
from math import ceil

import numpy as np
import torch

MAX_KERNELS = 1000
"""torchaudio holds one filter for each phase of the two rates; odd pairs of rates are rounded."""

_SOXR_LIKE = {
    "resampling_method": "sinc_interp_kaiser",
    "lowpass_filter_width": 96,
    "rolloff": 0.95686,
    "beta": 13.75,
}
"""Passband, stopband and steepness of soxr's high quality, as near as torchaudio's one filter comes."""

Resampler = Callable[[np.ndarray, int, int], np.ndarray]
"""Takes a mono float32 signal, its rate and the wanted one, both in Hz."""


def resample(signal: np.ndarray, source: int, target: int) -> np.ndarray:
    """Return a mono float32 signal at `target` Hz instead of `source` Hz."""
    if source == target:
        return signal
    length = ceil(len(signal) * (target / source))
    resampled = _load()(signal, source, target)
    # The resamplers round the length in ways of their own.
    return np.pad(resampled[:length], (0, max(length - len(resampled), 0)))


@cache
def _load() -> Resampler:
    """Return the best resampler of this machine; raises ImportError if it has none."""
    try:
        import soxr
    except (ImportError, OSError):  # no build for the platform
        return _load_torchaudio()
    return lambda signal, source, target: soxr.resample(signal, source, target, quality="HQ")


def _load_torchaudio() -> Resampler:
    from torchaudio.functional import resample as compute

    def convert(signal: np.ndarray, source: int, target: int) -> np.ndarray:
        ratio = Fraction(source, target).limit_denominator(MAX_KERNELS)
        resampled: np.ndarray = compute(
            torch.from_numpy(signal), ratio.numerator, ratio.denominator, **_SOXR_LIKE
        ).numpy()
        return resampled

    return convert
