"""Losses on waveforms: sample errors and the signal-to-distortion family.

All take (batch, samples) and optional lengths (batch,) in samples, and return (batch,). Two guards keep the ratios
finite: `eps`, a mean-square floor (1e-10 is -100 dBFS) that enters energies as eps * samples and so does not depend on
padding or length; and `max_db`, a soft maximum that lets tau = 10^(-max_db/10) of the target energy join the error
energy (Wisdom et al. 2020), so that a perfect estimate has a zero gradient instead of an infinite one.
"""

from __future__ import annotations

import math
from typing import Annotated

import torch
from torch import Tensor

from harness.losses.registry import Range, loss
from harness.signal import mask_samples

MaxDb = Annotated[float, Range(10, 50)]
Eps = Annotated[float, Range(1e-12, 1e-6, log=True)]


# l1 and mse have no target metric: SNR of one item does follow from its MSE, but their batch mean is ruled by the loud
# items and that of SNR is not, so SNR can still judge them.
@loss(minimum=0.0, unit="amplitude")
def l1(estimate: Tensor, clean: Tensor, lengths: Tensor | None = None) -> Tensor:
    """Mean absolute error. estimate, clean: (batch, samples); lengths: (batch,) samples. Returns (batch,)."""
    error, samples = _error(estimate, clean, lengths)
    return error.abs().sum(-1) / samples


@loss(minimum=0.0, unit="amplitude²")
def mse(estimate: Tensor, clean: Tensor, lengths: Tensor | None = None) -> Tensor:
    """Mean squared error. estimate, clean: (batch, samples); lengths: (batch,) samples. Returns (batch,)."""
    error, samples = _error(estimate, clean, lengths)
    return _energy(error) / samples


# Differs from -SNR by the level of the target, a constant: the same gradient, hence the same target metric.
@loss(
    minimum=lambda eps, **_: 10 * math.log10(eps),
    unit="dB",
    targets=("snr",),
    reference="Heitkaemper et al. 2020, Demystifying TasNet, arXiv 1911.08895, eq. 11",
)
def log_mse(
    estimate: Tensor, clean: Tensor, lengths: Tensor | None = None, *, max_db: MaxDb = 30.0, eps: Eps = 1e-10
) -> Tensor:
    """Mean squared error in decibels, 10 log10(mse + tau * mean square of clean + eps).

    estimate, clean: (batch, samples); lengths: (batch,) samples. Returns (batch,) dB re full scale, at least
    10 log10(eps). A mean over time, not a sum: the sum would add 10 log10(samples).
    """
    error, samples = _error(estimate, clean, lengths)
    target = _energy(mask_samples(clean, lengths))
    return 10 * torch.log10((_energy(error) + _tau(max_db) * target) / samples + eps)


@loss(
    minimum=lambda max_db, **_: -max_db,
    unit="dB",
    targets=("snr",),
    reference="Le Roux et al. 2019, SDR: half-baked or well done?, arXiv 1811.02508",
    aliases=("sdr",),
)
def snr(
    estimate: Tensor,
    clean: Tensor,
    lengths: Tensor | None = None,
    *,
    zero_mean: bool = False,
    max_db: MaxDb = 30.0,
    eps: Eps = 1e-10,
) -> Tensor:
    """Signal-to-noise ratio, negated: -10 log10(|s|² / |e - s|²).

    estimate, clean: (batch, samples); lengths: (batch,) samples. Returns (batch,) dB, at least -max_db. A silent target
    costs about +80 dB of value at an ordinary gradient. zero_mean removes both means first.
    """
    estimate, clean, samples = _signals(estimate, clean, lengths, zero_mean)
    return _ratio(_energy(clean), _energy(estimate - clean), eps * samples, max_db)


@loss(
    minimum=lambda max_db, **_: -max_db,
    unit="dB",
    targets=("si_sdr",),
    reference="Le Roux et al. 2019, SDR: half-baked or well done?, arXiv 1811.02508",
)
def si_sdr(
    estimate: Tensor,
    clean: Tensor,
    lengths: Tensor | None = None,
    *,
    zero_mean: bool = True,
    max_db: MaxDb = 30.0,
    eps: Eps = 1e-10,
) -> Tensor:
    """Scale-invariant SDR, negated: -10 log10(|a s|² / |e - a s|²) with a = <e, s> / |s|².

    estimate, clean: (batch, samples); lengths: (batch,) samples. Returns (batch,) dB, at least -max_db. zero_mean
    removes both means first; the paper's definition does not, and a constant offset then counts as noise.
    """
    estimate, clean, samples = _signals(estimate, clean, lengths, zero_mean)
    floor = eps * samples
    target = _energy(clean)
    # The floor in the numerator too, or a silent estimate would have a zero gradient for ever.
    scale = ((estimate * clean).sum(-1) + floor) / (target + floor)
    # The residual itself, not 1 - cos², which in float32 is 2 mdB off at 20 dB and saturates at 46 dB.
    residual = _energy(estimate - scale[:, None] * clean)
    return _ratio(scale.square() * target, residual, floor, max_db)


# For {speech, noise} whose estimates add up to the mixture this is SNR plus a constant, hence its target metric.
@loss(
    minimum=lambda max_db, **_: -max_db,
    unit="dB",
    targets=("snr",),
    reference="von Neumann et al. 2022, SA-SDR, arXiv 2110.15581",
)
def sa_sdr(
    estimates: Tensor, sources: Tensor, lengths: Tensor | None = None, *, max_db: MaxDb = 30.0, eps: Eps = 1e-10
) -> Tensor:
    """Source-aggregated SDR, negated: energies are summed over the sources of a mixture before the ratio.

    estimates, sources: (batch, sources, samples); lengths: (batch,) samples. Returns (batch,) dB, at least -max_db. Not
    scale-invariant, and never summed over the batch. One silent source among several is harmless.
    """
    samples = _samples(estimates, lengths)
    sources = mask_samples(sources, lengths)
    error = mask_samples(estimates, lengths) - sources
    return _ratio(_energy(sources).sum(-1), _energy(error).sum(-1), eps * samples, max_db)


def _ratio(target: Tensor, error: Tensor, floor: Tensor | float, max_db: float) -> Tensor:
    """-10 log10 of the guarded energy ratio, (batch,) dB: bounded by -max_db, and 0 when both are silent."""
    return -10 * torch.log10((target + floor) / (error + _tau(max_db) * target + floor))


def _tau(max_db: float) -> float:
    return 10.0 ** (-max_db / 10)


def _energy(signal: Tensor) -> Tensor:
    return signal.square().sum(-1)


def _samples(signal: Tensor, lengths: Tensor | None) -> Tensor | float:
    """Valid samples of each item; an empty item counts one, so that its mean is 0 and not 0/0."""
    if lengths is None:
        return float(max(1, signal.shape[-1]))
    return lengths.clamp(1, max(1, signal.shape[-1])).to(signal.dtype)


def _error(estimate: Tensor, clean: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor | float]:
    return mask_samples(estimate - clean, lengths), _samples(estimate, lengths)


def _signals(
    estimate: Tensor, clean: Tensor, lengths: Tensor | None, zero_mean: bool
) -> tuple[Tensor, Tensor, Tensor | float]:
    """Both signals with zeros in the padding and, if asked, without the mean of their valid samples."""
    samples = _samples(estimate, lengths)
    estimate, clean = mask_samples(estimate, lengths), mask_samples(clean, lengths)
    if zero_mean:
        estimate = mask_samples(estimate - (estimate.sum(-1) / samples)[:, None], lengths)
        clean = mask_samples(clean - (clean.sum(-1) / samples)[:, None], lengths)
    return estimate, clean, samples
