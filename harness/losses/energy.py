"""Energies of waveforms and the two guards that keep their ratios finite, shared by the losses on waveforms.

`eps` is a mean-square floor (1e-10 is -100 dBFS) that enters energies as eps * samples and so does not depend on padding
or length. `max_db` is a soft maximum: tau = 10^(-max_db/10) of the target energy joins the error energy (Wisdom et al.
2020), so that a perfect estimate has a zero gradient instead of an infinite one.
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor
from torch.nn import functional

from harness.settings import Range
from harness.signal import mask_samples

MaxDb = Annotated[float, Range(10, 50)]
Eps = Annotated[float, Range(1e-12, 1e-6, log=True)]


def energy(signal: Tensor) -> Tensor:
    """Sum of squares over the last axis."""
    return signal.square().sum(-1)


def error_energy(estimate: Tensor, clean: Tensor) -> Tensor:
    """Sum of squared differences over the last axis: one pass over the signals each way, where `energy` takes two."""
    return functional.mse_loss(estimate, clean, reduction="none").sum(-1)


def valid_samples(signal: Tensor, lengths: Tensor | None) -> Tensor | float:
    """Valid samples of each item; an empty item counts one, so that its mean is 0 and not 0/0."""
    if lengths is None:
        return float(max(1, signal.shape[-1]))
    return lengths.clamp(1, max(1, signal.shape[-1])).to(signal.dtype)


def masked_pair(
    estimate: Tensor, clean: Tensor, lengths: Tensor | None, zero_mean: bool = False
) -> tuple[Tensor, Tensor, Tensor | float]:
    """Both signals with zeros in the padding and, if asked, without the mean of their valid samples; how many are valid."""
    samples = valid_samples(estimate, lengths)
    estimate, clean = mask_samples(estimate, lengths), mask_samples(clean, lengths)
    if zero_mean:
        estimate = mask_samples(estimate - (estimate.sum(-1) / samples)[:, None], lengths)
        clean = mask_samples(clean - (clean.sum(-1) / samples)[:, None], lengths)
    return estimate, clean, samples


def projection(estimate: Tensor, clean: Tensor, floor: Tensor | float) -> tuple[Tensor, Tensor]:
    """Gain a = <e, s> / |s|² of the part of an estimate that is the target, and that part's energy; (batch,) each."""
    target = energy(clean)
    # The floor in the numerator too, or a silent estimate would have a zero gradient for ever.
    scale = ((estimate * clean).sum(-1) + floor) / (target + floor)
    return scale, scale.square() * target


def ratio_db(target: Tensor, error: Tensor, floor: Tensor | float, max_db: float) -> Tensor:
    """-10 log10 of the guarded energy ratio, (batch,) dB: bounded by -max_db, and 0 when both are silent."""
    return -10 * torch.log10((target + floor) / (error + tau(max_db) * target + floor))


def safe_root(energy: Tensor) -> Tensor:
    """Square root with a slope of 0 at 0, where a plain one lets a single perfect item spoil the batch."""
    positive = energy > 0
    return energy.where(positive, 1.0).sqrt().where(positive, 0.0)


def tau(max_db: float) -> float:
    """Share of the target energy that joins the error energy under a ceiling of max_db."""
    return 10.0 ** (-max_db / 10)
