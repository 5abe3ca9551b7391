"""PESQ's perceptual model as a loss, frame by frame and without time alignment."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from harness.losses.bands import band_power
from harness.losses.bark import Bark, bark
from harness.losses.registry import loss
from harness.losses.waveform import Eps
from harness.signal import mask_samples, sample_mask

LEVEL = 1e7  # power of speech between 350 and 3250 Hz after levelling
LOUDNESS = 0.1866055


@loss(
    minimum=0.0,
    unit="disturbance",
    targets=("pesq_wb", "pesq_nb"),
    reference="Martin-Donas et al. 2018, A deep learning loss function based on the perceptual evaluation of the speech "
    "quality, IEEE SPL 25(11)",
)
def pmsqe(
    estimate: Tensor,
    clean: Tensor,
    lengths: Tensor | None = None,
    *,
    sample_rate: Literal[16000, 8000] = 16000,
    frequency_equalisation: bool = True,
    gain_equalisation: bool = True,
    eps: Eps = 1e-10,
) -> Tensor:
    """Perceptual metric for speech quality evaluation: mean of PESQ's symmetric and asymmetric disturbance of a frame.

    estimate, clean: (batch, samples) at sample_rate Hz; lengths: (batch,) samples. Returns (batch,), 0.1 D + 0.0309 DA,
    from 3e-4 for a perfect estimate to about 4. Blind to level, and to a silent estimate, which has no gradient: train
    on `log_mse + pmsqe`, as the paper does. A constant offset costs, unlike in PESQ, for bin 0 is kept.
    """
    # Other departures of the paper from P.862: the estimate is equalised and not the reference, the gain is not
    # smoothed over time, the lowest band counts, and frames are averaged instead of pooled by higher norms.
    tables = bark(sample_rate, clean.device, clean.dtype)
    size = len(tables.window)
    estimate, clean = mask_samples(estimate, lengths), mask_samples(clean, lengths)
    frames = 1 + max(0, clean.shape[-1] - size) // (size // 2)
    if lengths is None:
        lengths = torch.full(clean.shape[:1], clean.shape[-1], device=clean.device)
    count = 1 + (lengths - size).clamp(min=0) // (size // 2)
    valid = sample_mask(count, frames)[..., None]
    with torch.no_grad():
        reference = _levelled(clean, tables, frames, valid, count, eps)
        audible = _audible(reference, tables, 1)
        reference_loudness = _loudness(reference, tables)
        weight = ((audible + 1e5) / 1e7) ** 0.04
    degraded = _levelled(estimate, tables, frames, valid, count, eps)
    if frequency_equalisation:
        degraded = degraded * _equaliser(reference, degraded, tables, valid)
    if gain_equalisation:
        degraded = degraded * ((audible + 5e3) / (_audible(degraded, tables, 1) + 5e3)).clamp(3e-4, 5)

    loudness = _loudness(degraded, tables)
    masked = 0.25 * torch.minimum(loudness, reference_loudness)
    symmetric = ((loudness - reference_loudness).abs() - masked).clamp(min=1e-8)
    # What is added disturbs more than what is missing.
    ratio = (degraded + 50) / (reference + 50)
    factor = torch.where(ratio < 3 ** (1 / 1.2), 0.0, ratio.clamp(max=12 ** (1 / 1.2)) ** 1.2)
    total = (((symmetric * tables.width).square() + 1e-8).sum(-1) * tables.width.sum()).sqrt()
    added = (factor * symmetric) @ tables.width
    weight = weight[..., 0]
    frame = 0.1 * (total / weight).clamp(max=45) + 0.0309 * (added / weight).clamp(max=45)
    return frame.masked_fill(~valid[..., 0], 0.0).sum(-1) / count


def _levelled(signal: Tensor, tables: Bark, frames: int, valid: Tensor, count: Tensor, eps: float) -> Tensor:
    """Bark spectrum at the level of LEVEL, (batch, frames, bands)."""
    hop = len(tables.window) // 2
    samples = (frames + 1) * hop
    blocks = nn.functional.pad(signal, (0, samples - signal.shape[-1])).unflatten(-1, (frames + 1, hop))
    power = band_power(blocks, tables.window, tables.weights, len(tables.window))
    level = power[..., -1:].masked_fill(~valid, 0.0).sum(1, keepdim=True) / count[:, None, None]
    return power[..., :-1] * (LEVEL / (level + eps))


def _audible(spectrum: Tensor, tables: Bark, factor: float) -> Tensor:
    """Power above the threshold of hearing times a factor, (batch, frames, 1)."""
    return torch.where(spectrum > factor * tables.threshold, spectrum, 0.0).sum(-1, keepdim=True)


def _equaliser(reference: Tensor, degraded: Tensor, tables: Bark, valid: Tensor) -> Tensor:
    """What brings the mean spectrum of the degraded signal to that of the reference, (batch, 1, bands)."""
    active = valid & (_audible(reference, tables, 100) >= LEVEL)
    cells = active & (reference >= 100 * tables.threshold)
    sums = [torch.where(cells, spectrum, 0.0).sum(1, keepdim=True) for spectrum in (reference, degraded)]
    return ((sums[0] + 1000) / (sums[1] + 1000)).clamp(0.01, 100)


def _loudness(spectrum: Tensor, tables: Bark) -> Tensor:
    """Zwicker's law, in sone per Bark; nothing below the threshold of hearing."""
    above = (spectrum / tables.threshold).clamp(min=1)
    return LOUDNESS * (tables.threshold / 0.5) ** tables.exponent * ((0.5 + 0.5 * above) ** tables.exponent - 1)
