"""PESQ's perceptual model as a loss, frame by frame and without time alignment."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from harness.losses.bands import band_power
from harness.losses.bark import Bark, bark
from harness.losses.energy import Eps
from harness.losses.registry import loss
from harness.signal import mask_samples, sample_mask

LEVEL = 1e7  # power of speech between 350 and 3250 Hz after levelling
AUDIBLE_ASYMMETRY, MOST_ASYMMETRY = 3 ** (1 / 1.2), 12 ** (1 / 1.2)  # of which the power 1.2 is taken


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
    estimate, clean = mask_samples(estimate, lengths), mask_samples(clean, lengths)
    hop = len(tables.window) // 2
    frames = max(1, clean.shape[-1] // hop - 1)
    if lengths is None:
        lengths = torch.full(clean.shape[:1], clean.shape[-1], device=clean.device)
    count = (lengths // hop - 1).clamp(min=1)
    valid = sample_mask(count, frames)[..., None]
    with torch.no_grad():
        power = _power(clean, tables, frames)
        reference = power[..., :-1] * _level_gain(power, valid, count, eps)
    power = _power(estimate, tables, frames)
    settings = (tables, eps, frequency_equalisation, gain_equalisation)
    return _Disturbance.apply(power, reference, valid, count, *settings)


class _Disturbance(torch.autograd.Function):
    """Value of each item from band powers and level of the estimate, (batch, frames, bands + 1), and a levelled reference.

    By hand: the slope is made beside the value from what is at hand, where autograd would take each power twice again.
    Names that begin with `by_` are derivatives of the value by what follows.
    """

    @staticmethod
    def forward(
        ctx: Any, power: Tensor, reference: Tensor, valid: Tensor, count: Tensor, tables: Bark, eps: float,
        frequency_equalisation: bool, gain_equalisation: bool,
    ) -> Tensor:  # fmt: skip
        share = valid.to(power.dtype) / count[:, None, None]
        level_gain = _level_gain(power, valid, count, eps)
        levelled = power[..., :-1] * level_gain
        audible = _audible(reference, tables, 1)

        degraded = levelled
        if frequency_equalisation:
            cells = _active_cells(reference, tables, valid)
            wanted, given = ((spectrum * cells).sum(1, keepdim=True) + 1000 for spectrum in (reference, levelled))
            equaliser = (wanted / given).clamp(0.01, 100)
            degraded = degraded * equaliser
        equalised = degraded
        if gain_equalisation:
            heard = equalised > tables.threshold
            wanted_power, given_power = audible + 5e3, (equalised * heard).sum(-1, keepdim=True) + 5e3
            gain = (wanted_power / given_power).clamp(3e-4, 5)
            degraded = equalised * gain

        above = _above(degraded, tables)
        zwicker = tables.loudness * above**tables.exponent
        loudness, reference_loudness = zwicker - tables.loudness, _loudness(reference, tables)
        difference = loudness - reference_loudness
        excess = difference.abs() - 0.25 * torch.minimum(loudness, reference_loudness)
        symmetric = excess.clamp(min=1e-8)
        # What is added disturbs more than what is missing.
        ratio = (degraded + 50) / (reference + 50)
        asymmetric = (ratio >= AUDIBLE_ASYMMETRY) * ratio.clamp(max=MOST_ASYMMETRY) ** 1.2
        weight = ((audible + 1e5) / 1e7) ** 0.04
        weighted = symmetric * tables.width
        total = ((weighted.square().sum(-1, keepdim=True) + len(tables.width) * 1e-8) * tables.width.sum()).sqrt()
        added = (asymmetric * weighted).sum(-1, keepdim=True)
        frame = 0.1 * (total / weight).clamp(max=45) + 0.0309 * (added / weight).clamp(max=45)
        value = frame.masked_fill(~valid, 0.0).sum((1, 2)) / count

        if ctx.needs_input_grad[0]:
            by_total = 0.1 * share / weight * (total < 45 * weight) * tables.width.sum() / total
            by_added = 0.0309 * share / weight * (added < 45 * weight)
            # Of min(loudness, reference), a quarter is taken off: what is below the reference counts 1.25 times.
            by_loudness = (by_total * weighted + by_added * asymmetric) * tables.width
            by_loudness *= ((difference > 0) * 2.25 - 1.25) * (excess > 1e-8)
            by_degraded = by_loudness * zwicker / above * (above > 1) * (tables.exponent * tables.above_slope)
            by_degraded += by_added * weighted * asymmetric / (degraded + 50) * (ratio < MOST_ASYMMETRY) * 1.2
            if gain_equalisation:
                by_given = -(by_degraded * equalised).sum(-1, keepdim=True) * gain / given_power
                by_given *= (gain > 3e-4) & (gain < 5)
                by_degraded = by_degraded * gain + by_given * heard
            if frequency_equalisation:
                by_given = -(by_degraded * levelled).sum(1, keepdim=True) * equaliser / given
                by_given *= (equaliser > 0.01) & (equaliser < 100)
                by_degraded = by_degraded * equaliser + by_given * cells
            slope = torch.empty_like(power)
            torch.mul(by_degraded, level_gain, out=slope[..., :-1])
            by_gain = (by_degraded * power[..., :-1]).sum((1, 2), keepdim=True)
            slope[..., -1:] = -by_gain * level_gain.square() / LEVEL * share
            ctx.save_for_backward(slope)
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (slope,) = ctx.saved_tensors
        return slope * gradients[0][:, None, None], *[None] * 7


def _power(signal: Tensor, tables: Bark, frames: int) -> Tensor:
    """Band powers of each frame and, last, its mean square between 350 and 3250 Hz: (batch, frames, bands + 1)."""
    size = len(tables.window)
    samples = (frames + 1) * size // 2
    blocks = nn.functional.pad(signal, (0, samples - signal.shape[-1])).unflatten(-1, (frames + 1, size // 2))
    low, high = band_power(blocks, tables.window, [tables.low, tables.high], size)
    return torch.cat([low[..., :-1], high[..., :-1], low[..., -1:] + high[..., -1:]], -1)


def _level_gain(power: Tensor, valid: Tensor, count: Tensor, eps: float) -> Tensor:
    """What brings the speech band to LEVEL, (batch, 1, 1)."""
    level = power[..., -1:].masked_fill(~valid, 0.0).sum(1, keepdim=True) / count[:, None, None]
    return LEVEL / (level + eps)


def _audible(spectrum: Tensor, tables: Bark, factor: float) -> Tensor:
    """Power above the threshold of hearing times a factor, (batch, frames, 1)."""
    return (spectrum * (spectrum > factor * tables.threshold)).sum(-1, keepdim=True)


def _active_cells(reference: Tensor, tables: Bark, valid: Tensor) -> Tensor:
    """(batch, frames, bands), True where the reference is well above the threshold in a frame of speech."""
    active = valid & (_audible(reference, tables, 100) >= LEVEL)
    return active & (reference >= 100 * tables.threshold)


def _above(spectrum: Tensor, tables: Bark) -> Tensor:
    """Half of one and of the power over the threshold of hearing: the base of Zwicker's law, 1 below the threshold."""
    return 0.5 + (spectrum * tables.above_slope).clamp(min=0.5)


def _loudness(spectrum: Tensor, tables: Bark) -> Tensor:
    """Zwicker's law, in sone per Bark; nothing below the threshold of hearing."""
    return tables.loudness * _above(spectrum, tables) ** tables.exponent - tables.loudness
