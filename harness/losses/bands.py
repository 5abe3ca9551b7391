"""Power of frames in frequency bands: the first step of every measure that models hearing."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


def half_overlapped(blocks: Tensor, window: Tensor) -> Tensor:
    """Windowed frames of two neighbouring blocks each, every block starting one.

    blocks: (batch, blocks, samples); window: (2 * samples,). Returns (batch, blocks - 1, 2 * samples).
    """
    samples = blocks.shape[-1]
    return torch.cat([blocks[:, :-1] * window[:samples], blocks[:, 1:] * window[samples:]], -1)


def band_power(frames: Tensor, weights: Tensor, n_fft: int, first: int = 0) -> Tensor:
    """Weighted sums of power spectra: sum over k of |X_k|² weights[k - first].

    frames: (..., samples), transformed with n_fft >= samples points; weights: (bins, bands), of the bins from `first`
    on. Returns (..., bands).
    """
    return _BandPower.apply(frames, weights.repeat_interleave(2, 0), n_fft, first)


class _BandPower(torch.autograd.Function):
    """Written out because autograd would take the complex transform of both sidebands for the gradient of a real one."""

    @staticmethod
    def forward(ctx: Any, frames: Tensor, weights: Tensor, n_fft: int, first: int) -> Tensor:
        spectrum = torch.fft.rfft(frames, n=n_fft)
        ctx.save_for_backward(spectrum, weights)
        ctx.n_fft, ctx.first, ctx.samples = n_fft, first, frames.shape[-1]
        # Real and imaginary parts side by side, so that one product with the weights sums both squares.
        parts = torch.view_as_real(spectrum).flatten(-2)[..., 2 * first : 2 * first + len(weights)]
        return parts.square() @ weights

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        spectrum, weights = ctx.saved_tensors
        parts = torch.view_as_real(spectrum).flatten(-2)
        before = 2 * ctx.first
        adjoint = nn.functional.pad(weights.T, (before, parts.shape[-1] - before - len(weights)))
        # The inverse counts a bin and its mirror image; the first and the last have none and count once.
        adjoint[:, :2] *= 2
        adjoint[:, -2:] *= 2
        turned = (gradients[0] @ adjoint).mul_(parts).unflatten(-1, (-1, 2))
        frames = torch.fft.irfft(torch.view_as_complex(turned), n=ctx.n_fft, norm="forward")
        return frames[..., : ctx.samples], None, None, None
