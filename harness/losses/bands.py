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
    # To whole vectors of the processor: a product with 15 columns takes three times as long as one with 16.
    weights = [nn.functional.pad(group.weights, (0, -group.weights.shape[1] % 16)) for group in groups]
    doubled = [weight[:, None].expand(-1, 2, -1).flatten(0, 1) for weight in weights]
    powers = _BandPower.apply(blocks, window, n_fft, [2 * group.first for group in groups], *doubled)
    return [power[..., : group.weights.shape[1]] for power, group in zip(powers, groups, strict=True)]


class _BandPower(torch.autograd.Function):
    """By hand, because autograd would take the complex transform of both sidebands for the gradient of a real one.

    weights: those of real and imaginary parts in turn, from part `start` on, so that one product sums both squares.
    """

    @staticmethod
    def forward(
        ctx: Any, blocks: Tensor, window: Tensor, n_fft: int, starts: list[int], *weights: Tensor
    ) -> tuple[Tensor, ...]:
        samples = blocks.shape[-1]
        frames = torch.cat([blocks[:, :-1] * window[:samples], blocks[:, 1:] * window[samples:]], -1)
        spectrum = torch.fft.rfft(frames, n=n_fft)
        ctx.save_for_backward(spectrum, window, *weights)
        ctx.n_fft, ctx.starts, ctx.samples = n_fft, starts, samples
        parts = torch.view_as_real(spectrum).flatten(-2)
        return tuple(
            parts[..., start : start + len(weight)].square() @ weight
            for start, weight in zip(starts, weights, strict=True)
        )

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        spectrum, window, *weights = ctx.saved_tensors
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
        batch, count = frames.shape[:2]
        slope = frames.new_empty(batch, count + 1, ctx.samples)
        slope[:, -1] = 0
        torch.mul(frames[..., : ctx.samples], window[: ctx.samples], out=slope[:, :-1])
        slope[:, 1:].addcmul_(frames[..., ctx.samples : 2 * ctx.samples], window[ctx.samples :])
        return slope, *[None] * (3 + len(weights))
