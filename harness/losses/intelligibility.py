"""Short-time objective intelligibility as a loss: how well the envelopes of an estimate follow those of clean speech.

Both compare all stretches of 30 frames (384 ms) in 15 third-octave bands and equal pystoi. A clip with fewer frames of
speech than that, or a silent target, has the value 1 and no gradient; the metric calls it missing.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from harness.losses.registry import loss
from harness.losses.third_octaves import BANDS, SEGMENT, third_octaves
from harness.signal import mask_samples, sample_mask

Rate = Literal[16000, 10000, 8000]

CLIP = 1 + 10 ** (15 / 20)  # an envelope is cut where its signal-to-distortion ratio falls below -15 dB
STEADY = 1e-10  # of an envelope's power: variations below this are rounding
FAINT = 1e-12  # of the signal's own power: what a silent envelope is divided by
ALIKE = 1e-10  # what a frame alike in all bands is divided by; its squared norm is about .5 where there is speech


@loss(
    minimum=0.0,
    unit="1 - STOI",
    targets=("stoi",),
    reference="Taal et al. 2011, An algorithm for intelligibility prediction of time-frequency weighted noisy speech",
)
def stoi(
    estimate: Tensor, clean: Tensor, lengths: Tensor | None = None, *, sample_rate: Rate = 16000, vad: bool = True
) -> Tensor:
    """One minus STOI: the correlation of third-octave envelopes over 384 ms, those of the estimate scaled and clipped.

    estimate, clean: (batch, samples) at sample_rate Hz; lengths: (batch,) samples. Returns (batch,), from 0 to about 1.
    vad leaves out the frames in which the clean signal is 40 dB below its loudest, as the definition does.
    """
    return _one_minus(_Correlation, estimate, clean, lengths, sample_rate, vad)


@loss(
    minimum=0.0,
    unit="1 - ESTOI",
    targets=("estoi",),
    reference="Jensen & Taal 2016, An algorithm for predicting the intelligibility of speech masked by modulated noise",
)
def estoi(
    estimate: Tensor, clean: Tensor, lengths: Tensor | None = None, *, sample_rate: Rate = 16000, vad: bool = True
) -> Tensor:
    """One minus extended STOI: the correlation of short spectra after each band is normalised over 384 ms.

    estimate, clean: (batch, samples) at sample_rate Hz; lengths: (batch,) samples. Returns (batch,), from 0 to about 1.
    vad leaves out the frames in which the clean signal is 40 dB below its loudest, as the definition does.
    """
    return _one_minus(_SpectralCorrelation, estimate, clean, lengths, sample_rate, vad)


def _one_minus(
    measure: Any, estimate: Tensor, clean: Tensor, lengths: Tensor | None, sample_rate: int, vad: bool
) -> Tensor:
    estimate, clean = mask_samples(estimate, lengths), mask_samples(clean, lengths)
    y, x, frames = third_octaves(estimate, clean, lengths, sample_rate, vad)
    count = (frames - (SEGMENT - 1)).clamp(min=0)
    similarity = measure.apply(y, x)
    similarity = similarity.masked_fill(~sample_mask(count, similarity.shape[-1]), 0.0)
    return 1 - similarity.sum(-1) / count.clamp(min=1)


class _Correlation(torch.autograd.Function):
    """STOI of each segment, (batch, segments), from band magnitudes (batch, bands, frames); gradient by y alone.

    By hand, because a tensor of all segments is thirty times as large as the bands, and autograd would keep ten of them.
    The slope is made on the way, in the parts that `_spread` puts together.
    """

    @staticmethod
    def forward(ctx: Any, y: Tensor, x: Tensor) -> Tensor:
        x_segments, y_segments, limit = _segments(x), _segments(y), _segments(x * CLIP)
        x_mean, x_variance, x_power = _moments(x)
        y_power = _moments(y)[2]
        gain = (x_power / y_power).sqrt()
        cut = y_segments * gain
        clipped = cut > limit
        torch.minimum(cut, limit, out=cut)
        cut -= cut.mean(2, keepdim=True)
        # Relative to the power of the clean envelope, which that of the scaled one equals before it is cut.
        work = cut.square()
        cut_norm = work.sum(2, keepdim=True) + STEADY * x_power
        norms = cut_norm.sqrt() * (x_variance + STEADY * x_power).sqrt()
        correlation = torch.mul(cut, x_segments, out=work).sum(2, keepdim=True) / norms
        if ctx.needs_input_grad[0]:
            slope = cut.mul_(-correlation / cut_norm).addcmul_(x_segments, 1 / norms).sub_(x_mean / norms)
            slope.masked_fill_(clipped, 0.0)
            # The gain depends on every frame of the segment, too.
            along = torch.mul(slope, y_segments, out=work).sum(2, keepdim=True)
            ctx.save_for_backward(slope, gain, y, -along * gain / y_power)
        return correlation[:, :, 0].mean(1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return _spread(gradients[0] / BANDS, *ctx.saved_tensors), None


class _SpectralCorrelation(torch.autograd.Function):
    """ESTOI of each segment, (batch, segments), from band magnitudes (batch, bands, frames); gradient by y alone.

    Rows, over the frames, and then columns, over the bands, are given no mean and unit norm. By hand as above.
    """

    @staticmethod
    def forward(ctx: Any, y: Tensor, x: Tensor) -> Tensor:
        x_columns, _, _ = _rows(x)
        y_columns, mean, scale = _rows(y)
        x_columns -= x_columns.mean(1, keepdim=True)
        y_columns -= y_columns.mean(1, keepdim=True)
        work = x_columns.square()
        x_norm = (work.sum(1, keepdim=True) + ALIKE).sqrt()
        y_norm = (torch.mul(y_columns, y_columns, out=work).sum(1, keepdim=True) + ALIKE).sqrt()
        correlation = torch.mul(x_columns, y_columns, out=work).sum(1, keepdim=True) / (x_norm * y_norm)
        if ctx.needs_input_grad[0]:
            # Through the normalisation of columns,
            slope = x_columns.mul_(1 / (x_norm * y_norm)).addcmul_(y_columns, -correlation / y_norm.square())
            # and of rows.
            total = slope.sum(2, keepdim=True)
            along = torch.mul(slope, _segments(y), out=work).sum(2, keepdim=True) - mean * total
            along *= scale**3
            level = along * mean - total * scale / SEGMENT
            ctx.save_for_backward(slope, scale, y, -(1 + STEADY) * along, level)
        return correlation[:, 0].mean(1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return _spread(gradients[0] / SEGMENT, *ctx.saved_tensors), None


def _segments(bands: Tensor) -> Tensor:
    """All runs of SEGMENT frames: (batch, bands, frames) as a view of (batch, bands, SEGMENT, segments)."""
    return bands.unfold(-1, SEGMENT, 1).mT


def _moments(bands: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, sum of squares about it, and sum of squares of each segment, (batch, bands, 1, segments) each."""
    exact = bands.double()  # a steady band's variation is a small difference of large sums
    mean, power = _segments(exact).mean(2, keepdim=True), _segments(exact.square()).sum(2, keepdim=True)
    variance = (power - SEGMENT * mean.square()).clamp(min=0)
    power += FAINT
    return mean.to(bands.dtype), variance.to(bands.dtype), power.to(bands.dtype)


def _rows(bands: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Segments whose rows have no mean and unit norm, (batch, bands, SEGMENT, segments); the means and 1 / norms."""
    mean, variance, power = _moments(bands)
    scale = (variance + STEADY * power + FAINT).rsqrt()
    return (_segments(bands) - mean).mul_(scale), mean, scale


def _spread(
    upstream: Tensor, slope: Tensor, factor: Tensor, y: Tensor, share: Tensor, level: Tensor | None = None
) -> Tensor:
    """The adjoint of `_segments` on upstream * (slope * factor + y * share + level): (batch, bands, frames).

    upstream: (batch, segments); slope: (batch, bands, SEGMENT, segments); the rest (batch, bands, 1, segments) but y.
    """
    batch, bands, frames, count = slope.shape
    upstream = upstream[:, None, None]
    # With as many zeros behind each row as there are rows, and the last ones cut, row k reads on k places later.
    padded = slope.new_empty(batch, bands, frames, count + frames)
    padded[..., count:] = 0
    torch.mul(slope, factor * upstream, out=padded[..., :count])
    own = padded.flatten(2)[..., :-frames].unflatten(-1, (frames, count + frames - 1)).sum(2)

    def all_of(segments: Tensor) -> Tensor:
        return _segments(nn.functional.pad((segments * upstream)[:, :, 0], (frames - 1, frames - 1))).sum(2)

    own = own + y * all_of(share)
    return own if level is None else own + all_of(level)
