"""Sample errors of waveforms.

All take (batch, samples) and optional lengths (batch,) in samples, and return (batch,). None of them but `log_mse` has a
target metric: SNR of one item does follow from its squared error, but their batch mean is ruled by the loud items and that
of SNR is not, so SNR can still judge them.
"""

from __future__ import annotations

import math
from typing import Annotated

import torch
from torch import Tensor
from torch.nn import functional

from harness.losses.energy import Eps, MaxDb, energy, error_energy, masked_pair, safe_root, tau
from harness.losses.registry import Range, loss

# Speech samples lie far below 1, where a threshold of 1 would make these two losses exactly half the MSE.
Threshold = Annotated[float, Range(1e-3, 1.0, log=True)]


@loss(minimum=0.0, unit="amplitude")
def l1(estimate: Tensor, clean: Tensor, lengths: Tensor | None = None) -> Tensor:
    """Mean absolute error. estimate, clean: (batch, samples); lengths: (batch,) samples. Returns (batch,)."""
    estimate, clean, samples = masked_pair(estimate, clean, lengths)
    return (estimate - clean).abs().sum(-1) / samples


@loss(minimum=0.0, unit="amplitude²")
def mse(estimate: Tensor, clean: Tensor, lengths: Tensor | None = None) -> Tensor:
    """Mean squared error. estimate, clean: (batch, samples); lengths: (batch,) samples. Returns (batch,)."""
    estimate, clean, samples = masked_pair(estimate, clean, lengths)
    return error_energy(estimate, clean) / samples


@loss(minimum=0.0, unit="amplitude")
def l2(estimate: Tensor, clean: Tensor, lengths: Tensor | None = None) -> Tensor:
    """Euclidean norm of the error, which grows with the square root of the length: `rmse` does not.

    estimate, clean: (batch, samples); lengths: (batch,) samples. Returns (batch,).
    """
    estimate, clean, _ = masked_pair(estimate, clean, lengths)
    return safe_root(error_energy(estimate, clean))


@loss(minimum=0.0, unit="amplitude")
def rmse(estimate: Tensor, clean: Tensor, lengths: Tensor | None = None) -> Tensor:
    """Root of the mean squared error. estimate, clean: (batch, samples); lengths: (batch,) samples. Returns (batch,)."""
    estimate, clean, samples = masked_pair(estimate, clean, lengths)
    return safe_root(error_energy(estimate, clean) / samples)


@loss(minimum=0.0, unit="amplitude", reference="Girshick 2015, Fast R-CNN, ICCV")
def smooth_l1(estimate: Tensor, clean: Tensor, lengths: Tensor | None = None, *, beta: Threshold = 0.05) -> Tensor:
    """Mean of d²/(2 beta) for errors d below beta, and of abs(d) - beta/2 above: L1 with a rounded tip.

    estimate, clean: (batch, samples); lengths: (batch,) samples. Returns (batch,).
    """
    estimate, clean, samples = masked_pair(estimate, clean, lengths)
    return functional.smooth_l1_loss(estimate, clean, beta=beta, reduction="none").sum(-1) / samples


@loss(
    minimum=0.0, unit="amplitude²", reference="Huber 1964, Robust estimation of a location parameter, Ann. Math. Stat."
)
def huber(estimate: Tensor, clean: Tensor, lengths: Tensor | None = None, *, delta: Threshold = 0.05) -> Tensor:
    """Mean of d²/2 for errors d up to delta, and of delta (abs(d) - delta/2) above: delta times `smooth_l1`.

    estimate, clean: (batch, samples); lengths: (batch,) samples. Returns (batch,).
    """
    estimate, clean, samples = masked_pair(estimate, clean, lengths)
    return functional.huber_loss(estimate, clean, delta=delta, reduction="none").sum(-1) / samples


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
    estimate, clean, samples = masked_pair(estimate, clean, lengths)
    return 10 * torch.log10((error_energy(estimate, clean) + tau(max_db) * energy(clean)) / samples + eps)
