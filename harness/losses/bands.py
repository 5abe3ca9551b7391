"""Power of frames in frequency bands: the first step of every measure that models hearing."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class Bands(NamedTuple):
    """Neighbouring bands. weights: (bins, bands), of the bins from `first` on."""

    first: int
    weights: Tensor


def band_power(blocks: Tensor, window: Tensor, groups: list[Bands], n_fft: int) -> list[Tensor]:
    """Weighted sums of power spectra: sum over k of |X_k|² weights[k - first], of frames of two neighbouring blocks.

    blocks: (batch, frames + 1, samples); window: (2 * samples,); n_fft >= 2 * samples points; groups: of which none holds
    a bin of another. Returns (batch, frames, bands) for each group.
    """
    samples = blocks.shape[-1]
    frames = torch.cat([blocks[:, :-1] * window[:samples], blocks[:, 1:] * window[samples:]], -1)
    # To whole vectors of the processor: a product with 15 columns takes three times as long as one with 16.
    weights = [nn.functional.pad(group.weights, (0, -group.weights.shape[1] % 16)) for group in groups]
    starts = [2 * group.first for group in groups]
    powers = _BandPower.apply(frames, n_fft, starts, *(weight.repeat_interleave(2, 0) for weight in weights))
    return [power[..., : group.weights.shape[1]] for power, group in zip(powers, groups, strict=True)]


class _BandPower(torch.autograd.Function):
    """By hand, because autograd would take the complex transform of both sidebands for the gradient of a real one.

    weights: those of real and imaginary parts in turn, from part `start` on, so that one product sums both squares.
    """

    @staticmethod
    def forward(ctx: Any, frames: Tensor, n_fft: int, starts: list[int], *weights: Tensor) -> tuple[Tensor, ...]:
        spectrum = torch.fft.rfft(frames, n=n_fft)
        ctx.save_for_backward(spectrum, *weights)
        ctx.n_fft, ctx.starts, ctx.samples = n_fft, starts, frames.shape[-1]
        parts = torch.view_as_real(spectrum).flatten(-2)
        return tuple(
            parts[..., start : start + len(weight)].square() @ weight
            for start, weight in zip(starts, weights, strict=True)
        )

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        spectrum, *weights = ctx.saved_tensors
        parts = torch.view_as_real(spectrum).flatten(-2)
        turned, done = torch.empty_like(parts), 0
        for start, weight, gradient in zip(ctx.starts, weights, gradients, strict=True):
            turned[..., done:start] = 0
            done = start + len(weight)
            torch.mul(gradient @ weight.T, parts[..., start:done], out=turned[..., start:done])
        turned[..., done:] = 0
        # The inverse counts a bin and its mirror image; the first and the last have none and count once.
        turned[..., :2] *= 2
        turned[..., -2:] *= 2
        frames = torch.fft.irfft(torch.view_as_complex(turned.unflatten(-1, (-1, 2))), n=ctx.n_fft, norm="forward")
        return frames[..., : ctx.samples], None, None, *[None] * len(weights)
