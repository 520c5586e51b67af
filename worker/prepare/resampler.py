"""A signal at another sampling rate, as soxr's high quality has it: what the authors' loaders resample with.

torchaudio computes it where it can be imported (it is linked to CUDA, so not beside a CPU torch) and soxr elsewhere.
"""

from collections.abc import Callable
from functools import cache
from math import ceil, gcd
from typing import Any

import numpy as np
import soxr
import torch

MAX_KERNELS = 1000
"""torchaudio holds one filter for each phase of the two rates; odd pairs of rates would have tens of thousands."""

_SOXR_LIKE = {
    "resampling_method": "sinc_interp_kaiser",
    "lowpass_filter_width": 88,
    "rolloff": 0.957,
    "beta": 11.5,
}
"""Passband, stopband and steepness of soxr's high quality: the two differ by less than a ten-thousandth."""


def resample(signal: np.ndarray, source: int, target: int) -> np.ndarray:
    """Return a mono float32 signal at `target` Hz instead of `source` Hz."""
    if source == target:
        return signal
    length = ceil(len(signal) * (target / source))
    torchaudio_resample = _load_torchaudio()
    if torchaudio_resample is None or max(source, target) // gcd(source, target) > MAX_KERNELS:
        resampled = soxr.resample(signal, source, target, quality="HQ")
    else:
        resampled = torchaudio_resample(torch.from_numpy(signal), source, target, **_SOXR_LIKE).numpy()
    # The resamplers round the length in ways of their own.
    return np.pad(resampled[:length], (0, max(length - len(resampled), 0)))


@cache
def _load_torchaudio() -> Callable[..., Any] | None:
    try:
        from torchaudio.functional import resample as torchaudio_resample  # fails beside a CPU torch
    except (ImportError, OSError, RuntimeError):
        return None
    return torchaudio_resample  # type: ignore[no-any-return]  # untyped
