"""Power of frames in frequency bands: the first step of every measure that models hearing."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


def band_power(blocks: Tensor, window: Tensor, weights: Tensor, n_fft: int, first: int = 0) -> Tensor:
    """Weighted sums of power spectra: sum over k of |X_k|² weights[k - first], of frames of two neighbouring blocks.

    blocks: (batch, frames + 1, samples); window: (2 * samples,); n_fft >= 2 * samples points; weights: (bins, bands), of
    the bins from `first` on. Returns (batch, frames, bands).
    """
    samples, bands = blocks.shape[-1], weights.shape[1]
    frames = torch.cat([blocks[:, :-1] * window[:samples], blocks[:, 1:] * window[samples:]], -1)
    # To whole vectors of the processor: a product with 15 columns takes three times as long as one with 16.
    doubled = nn.functional.pad(weights, (0, -bands % 16)).repeat_interleave(2, 0)
    return _BandPower.apply(frames, doubled, n_fft, 2 * first)[..., :bands]


class _BandPower(torch.autograd.Function):
    """By hand, because autograd would take the complex transform of both sidebands for the gradient of a real one.

    weights: those of real and imaginary parts in turn, from part `first` on, so that one product sums both squares.
    """

    @staticmethod
    def forward(ctx: Any, frames: Tensor, weights: Tensor, n_fft: int, first: int) -> Tensor:
        spectrum = torch.fft.rfft(frames, n=n_fft)
        ctx.save_for_backward(spectrum, weights)
        ctx.n_fft, ctx.first, ctx.samples = n_fft, first, frames.shape[-1]
        return _parts(spectrum)[..., first : first + len(weights)].square() @ weights

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        spectrum, weights = ctx.saved_tensors
        adjoint = nn.functional.pad(weights.T, (ctx.first, ctx.n_fft + 2 - ctx.first - len(weights)))
        # The inverse counts a bin and its mirror image; the first and the last have none and count once.
        adjoint[:, :2] *= 2
        adjoint[:, -2:] *= 2
        turned = (gradients[0] @ adjoint).mul_(_parts(spectrum)).unflatten(-1, (-1, 2))
        frames = torch.fft.irfft(torch.view_as_complex(turned), n=ctx.n_fft, norm="forward")
        return frames[..., : ctx.samples], None, None, None


def _parts(spectrum: Tensor) -> Tensor:
    """The same numbers as (..., 2 * bins) real ones, real and imaginary parts in turn."""
    return torch.view_as_real(spectrum).flatten(-2)
