"""The Bark scale of PESQ: published constants of ITU-T P.862 and P.862.2, band 0 first."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from harness.losses.bands import Bands

FRAME = {16000: 512, 8000: 256}  # samples, so that bins are 31.25 Hz apart
LOUDNESS = 0.1866055
POWER_SCALE = {16000: 6.910853e-6, 8000: 2.764344e-5}

# Consecutive bins of each band at 16 kHz; the first band starts at bin 0, and the Nyquist bin is unused.
# fmt: off
BINS = [
    *[1] * 8, 2, *[1] * 5, 2, 1, 1, *[2] * 8, *[3] * 4, 4, 3, 4, 5, 4, 5, 6, 6, 7, 8, 9, 9, 12, 12, 15, 16, 18, 21, 25, 20,
]
DENSITY = [  # correction of the power density
    *[100.0] * 8, 50, *[100.0] * 5, 53.047077, 110.000046, 117.991989, 65, 68.760147, 69.999931, 71.428818, 75.000038,
    76.843384, 80.968781, 88.646126, 63.864388, 68.155350, 72.547775, 75.584831, 58.379192, 80.950836, 64.135651,
    54.384785, 73.821884, 64.437073, 59.176456, 65.521278, 61.399822, 58.144047, 57.004543, 64.126297, 54.311001,
    61.114979, 55.077751, 56.849335, 55.628868, 53.137054, 54.985844, 79.546974,
]
THRESHOLD_DB = [  # of hearing
    77.1, 63.9, 48.5, 36.9, 30.7, 25.9, 20.2, 16.6, 12.5, 9.9, 6.9, 4.9, 2.8, 1.0, -0.1, -1.4, -2.5, -3.4, -4.1, -4.8,
    -5.3, -5.7, -5.9, -6.0, -6.0, -6.0, -6.0, -5.8, -5.4, -5.1, -4.7, -4.3, -4.0, -3.6, -3.3, -3.1, -3.0, -3.0, -2.9,
    -2.8, -2.8, -2.8, -2.9, -3.2, -3.7, -4.3, -4.4, -3.8, -2.7,
]
WIDTH = [  # in Bark
    0.157344, 0.317994, 0.322441, 0.326934, 0.331474, 0.336061, 0.340697, 0.345381, 0.350114, 0.354897, 0.359729,
    0.364611, 0.369544, 0.374529, 0.379565, 0.384653, 0.389794, 0.394989, 0.400236, 0.405538, 0.410894, 0.416306,
    0.421773, 0.427297, 0.432877, 0.438514, 0.444209, 0.449962, 0.455774, 0.461645, 0.467577, 0.473569, 0.479621,
    0.485736, 0.491912, 0.498151, 0.504454, 0.510819, 0.517250, 0.523745, 0.530308, 0.536934, 0.543629, 0.550390,
    0.557220, 0.564119, 0.571085, 0.578125, 0.585232,
]
# fmt: on
LOW_BANDS = 34  # with the speech level 35, and 16 others at 16 kHz: whole vectors of the processor but for a few
NARROW_BANDS, NARROW_LAST_BINS, NARROW_LAST_DENSITY = 42, 11, 59.248363  # the same up to 4 kHz


@dataclass(frozen=True)
class Bark:
    """Tables for one sample rate. The last ones: (bands,)."""

    window: Tensor  # periodic square-root Hann, (samples of a frame,)
    low: Bands  # power spectrum to the bands up to 2 kHz and, last, to their share of the mean square of 350-3250 Hz
    high: Bands  # the rest: apart, because a product of all bins with all bands is zeros for the most part
    threshold: Tensor  # power
    above_slope: Tensor  # half of 1 / threshold
    exponent: Tensor  # of Zwicker's law
    loudness: Tensor  # its factor, in sone per Bark
    width: Tensor


@functools.lru_cache(maxsize=32)
def bark(sample_rate: int, device: torch.device, dtype: torch.dtype) -> Bark:
    size = FRAME[sample_rate]
    bins, density = np.array(BINS), np.array(DENSITY)
    if sample_rate == 8000:
        bins, density = bins[:NARROW_BANDS], density[:NARROW_BANDS]
        bins[-1], density[-1] = NARROW_LAST_BINS, NARROW_LAST_DENSITY
    bands = len(bins)
    width = np.array(WIDTH[:bands])
    centre = np.cumsum(width) - width / 2
    weights = np.zeros((size // 2, bands + 1))
    band = np.repeat(np.arange(bands), bins)
    weights[np.arange(size // 2), band] = POWER_SCALE[sample_rate] * density[band]
    # The bins of speech, twice for both sidebands and twice more for the power that the window takes away.
    weights[11:105, bands] = 4 / size**2
    weights[[11, 104], bands] *= (0.4, 0.5)
    threshold = 10 ** (np.array(THRESHOLD_DB[:bands]) / 10)
    exponent = 0.23 * np.where(centre < 4, np.minimum(6 / (centre + 2), 2), 1) ** 0.15
    split = int(bins[:LOW_BANDS].sum())
    low = weights[:split, [*range(LOW_BANDS), bands]]
    high = weights[split:, LOW_BANDS:]
    tables = (
        threshold,
        0.5 / threshold,
        exponent,
        LOUDNESS * (threshold / 0.5) ** exponent,
        width,
    )
    # A tensor made in inference mode could not be used in a backward pass later, and these are kept.
    with torch.inference_mode(False):

        def constant(table: np.ndarray) -> Tensor:
            return torch.from_numpy(table).to(device, dtype)

        window = constant(np.sin(np.pi * np.arange(size) / size))
        groups = Bands(0, constant(low)), Bands(split, constant(high))
        return Bark(window, *groups, *map(constant, tables))
