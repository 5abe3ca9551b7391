"""Losses on mel bands: 512-point frames, hop 256, periodic Hann window, triangles of height 1 on the HTK scale, 16 kHz."""

from __future__ import annotations

from typing import Annotated

from torch import Tensor

from harness.losses.registry import Range, loss
from harness.signal import N_FFT, POWER_FLOOR, mask_samples
from harness.spectrum import hann, mean_over_frames, mel_filters, spectrum, squared_magnitude

Mels = Annotated[int, Range(8, 128)]
Lowest = Annotated[float, Range(0.0, 1000.0)]
Highest = Annotated[float, Range(2000.0, 8000.0)]
LOG_OFFSET = 1e-5  # joins a band's power before its logarithm
BAND_FLOOR = 1e-6  # joins a band's magnitude before its root: a band between two bins holds nothing


@loss(minimum=0.0, unit="nats")
def log_mel(
    estimate: Tensor,
    clean: Tensor,
    lengths: Tensor | None = None,
    *,
    n_mels: Mels = 40,
    f_min: Lowest = 0.0,
    f_max: Highest = 8000.0,
) -> Tensor:
    """Mean over valid frames and bands of abs(ln(M abs(E)² + 1e-5) - ln(M abs(S)² + 1e-5)), M the mel filters.

    estimate, clean: (batch, samples); lengths: (batch,) samples. Returns (batch,). f_min, f_max: in Hz. Blind to phase.
    """
    filters = mel_filters(n_mels, f_min, f_max, N_FFT, estimate.device, estimate.dtype)
    ours, theirs = (_power(x, lengths) @ filters + LOG_OFFSET for x in (estimate, clean))
    return mean_over_frames((ours / theirs).log().abs(), lengths)


@loss(
    minimum=0.0,
    unit="magnitude^c",
    reference="Saddler et al. 2020, Speech denoising with auditory models, arXiv 2011.10706",
)
def mel_l1(
    estimate: Tensor,
    clean: Tensor,
    lengths: Tensor | None = None,
    *,
    n_mels: Mels = 40,
    f_min: Lowest = 0.0,
    f_max: Highest = 8000.0,
    c: Annotated[float, Range(0.1, 1.0)] = 1.0,
) -> Tensor:
    """Mean over valid frames and bands of abs((M abs(E))^c - (M abs(S))^c), M the mel filters.

    estimate, clean: (batch, samples); lengths: (batch,) samples. Returns (batch,). f_min, f_max: in Hz; c: compression of
    a band, as in the ear. Blind to phase.
    """
    filters = mel_filters(n_mels, f_min, f_max, N_FFT, estimate.device, estimate.dtype)
    ours, theirs = ((_power(x, lengths) + POWER_FLOOR).sqrt() @ filters for x in (estimate, clean))
    if c != 1:
        ours, theirs = ((bands + BAND_FLOOR).pow(c) for bands in (ours, theirs))
    return mean_over_frames((ours - theirs).abs(), lengths)


def _power(signal: Tensor, lengths: Tensor | None) -> Tensor:
    frame = hann(N_FFT, signal.device, signal.dtype)
    return squared_magnitude(spectrum(mask_samples(signal, lengths), frame=frame))
