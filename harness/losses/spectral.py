"""Losses on the short-time spectrum of waveforms. Waveforms go in; the spectrum is taken inside (`harness.spectrum`).

All take estimate, clean: (batch, samples) and optional lengths (batch,) in samples, and return (batch,). E and S are the
spectra of the two: 512-point frames, hop 256, periodic square-root Hann window, unless a setting or the docstring says
otherwise. A floor under every power (1e-12, magnitude 1e-6) gives silence a finite logarithm and slope.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from torch import Tensor

from harness.losses.energy import safe_root
from harness.losses.registry import Range, loss
from harness.settings import Rows
from harness.signal import POWER_FLOOR, mask_samples
from harness.spectrum import hann, mean_over_frames, spectrum, squared_magnitude, valid_frames

Fft = Literal[256, 512, 1024, 2048]
Hop = Annotated[int, Range(32, 256, log=True)]  # never longer than a window
Share = Annotated[float, Range(0.0, 1.0)]
Weight = Annotated[float, Range(0.0, 10.0)]
Resolutions = Annotated[
    tuple[tuple[int, int, int], ...],
    Rows(
        fft=Range(64, 4096),
        hop=Range(16, 1024),
        window=Range(32, 4096),
        order=("hop", "window", "fft"),
    ),
]
STFT_CLAMP = 1e-7  # least power of `multi_res_stft`


@loss(minimum=0.0, unit="magnitude^p", reference="Kolbaek et al. 2020, arXiv 1909.01019 (p=2: STSA-MSE)")
def spectral_mag(
    estimate: Tensor,
    clean: Tensor,
    lengths: Tensor | None = None,
    *,
    p: Literal[1, 2] = 1,
    n_fft: Fft = 512,
    hop: Hop = 256,
) -> Tensor:
    """Mean over valid frames and bins of |abs(E) - abs(S)|^p; blind to phase.

    estimate, clean: (batch, samples); lengths: (batch,) samples. Returns (batch,).
    """
    ours, theirs = (_magnitude(spectrum(mask_samples(x, lengths), n_fft, hop)) for x in (estimate, clean))
    error = ours - theirs
    return mean_over_frames(error.abs() if p == 1 else error.square(), lengths, n_fft, hop)


@loss(
    minimum=0.0,
    unit="magnitude^power",
    reference="Lee & Seung 2000, Algorithms for non-negative matrix factorization, NIPS (generalised KL)",
)
def spectral_poisson(
    estimate: Tensor,
    clean: Tensor,
    lengths: Tensor | None = None,
    *,
    power: Literal[1, 2] = 1,
    eps: Annotated[float, Range(1e-10, 1e-4, log=True)] = 1e-8,
) -> Tensor:
    """Mean of P - Q ln P - (Q - Q ln Q), P and Q the magnitudes of E and S, or their squares; blind to phase.

    estimate, clean: (batch, samples); lengths: (batch,) samples. Returns (batch,). The likelihood of counts Q at the rates
    P: errors weigh less where the target is loud. eps joins P and Q, both, so that the minimum is exactly 0.
    """
    measure = _magnitude if power == 1 else _power
    p, q = (measure(spectrum(mask_samples(x, lengths))) + eps for x in (estimate, clean))
    ratio = p / q
    # Both terms of the same rounded ratio: near the minimum their difference is exact where p - q ln p would cancel.
    return mean_over_frames(q * (ratio - 1 - ratio.log()), lengths)


@loss(
    minimum=0.0,
    unit="magnitude^2c",
    reference="Braun & Tashev 2021, A consolidated view of loss functions, arXiv 2009.12286",
)
def complex_compressed(
    estimate: Tensor,
    clean: Tensor,
    lengths: Tensor | None = None,
    *,
    c: Annotated[float, Range(0.1, 1.0)] = 0.3,
    a: Share = 0.3,
) -> Tensor:
    """(1 - a) mean (abs(E)^c - abs(S)^c)² + a mean abs(abs(E)^c e^(j arg E) - abs(S)^c e^(j arg S))².

    estimate, clean: (batch, samples); lengths: (batch,) samples. Returns (batch,). The first term is blind to phase, the
    second is not. It starts slowly from a flat mask: give it a learning rate of its own, and enough updates.
    """
    ours, theirs = (spectrum(mask_samples(x, lengths)) for x in (estimate, clean))
    (our_size, ours), (their_size, theirs) = (_compressed(x, c) for x in (ours, theirs))
    cells = (1 - a) * (our_size - their_size).square() + a * squared_magnitude(ours - theirs)
    return mean_over_frames(cells, lengths)


@loss(
    minimum=0.0,
    unit="spectral convergence + nats",
    reference="Yamamoto et al. 2020, Parallel WaveGAN, arXiv 1910.11480",
)
def multi_res_stft(
    estimate: Tensor,
    clean: Tensor,
    lengths: Tensor | None = None,
    *,
    resolutions: Resolutions = ((1024, 120, 600), (2048, 240, 1200), (512, 50, 240)),
    w_sc: Weight = 1.0,
    w_mag: Weight = 1.0,
) -> Tensor:
    """Mean over resolutions of w_sc |abs(S) - abs(E)| / |abs(S)| + w_mag mean abs(ln abs(S) - ln abs(E)).

    estimate, clean: (batch, samples); lengths: (batch,) samples. Returns (batch,). resolutions: (FFT size, hop, Hann
    window) in samples. The first term, spectral convergence, is taken per item: over a whole batch a loud item would
    dominate. Powers are at least 1e-7, so that level does not matter above it, a silent target has a value, and a silent
    estimate a zero slope: combine it with a loss that has one.
    """
    estimate, clean = mask_samples(estimate, lengths), mask_samples(clean, lengths)
    values = []
    for n_fft, hop, width in resolutions:
        frame = hann(width, estimate.device, estimate.dtype)
        ours, theirs = (squared_magnitude(spectrum(x, n_fft, hop, frame)) for x in (estimate, clean))
        squares, logs = _Apart.apply(ours, theirs)
        whole = theirs.clamp(min=STFT_CLAMP).sum(-1)
        apart, whole = (valid_frames(x, lengths, n_fft, hop).sum(-1) for x in (squares, whole))
        log_apart = mean_over_frames(logs[..., None], lengths, n_fft, hop) / ours.shape[-1]
        values.append(w_sc * safe_root(apart / whole) + w_mag * log_apart)
    return torch.stack(values).mean(0)


class _Apart(torch.autograd.Function):
    """Powers P, Q (batch, frames, bins), clamped -> sums over bins of (sqrt P - sqrt Q)² and abs(ln P - ln Q) / 2.

    Both at once, because these arrays are what the loss costs: autograd would keep seven of them at each resolution where
    this keeps the two that come in, and take two logarithms for one of the ratio.
    """

    @staticmethod
    def forward(ctx: Any, ours: Tensor, theirs: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(ours, theirs)
        p, q = ours.clamp(min=STFT_CLAMP), theirs.clamp(min=STFT_CLAMP)
        squares = (p.sqrt() - q.sqrt()).square_().sum(-1)
        return squares, 0.5 * p.div_(q).log_().abs_().sum(-1)

    @staticmethod
    def backward(ctx: Any, of_squares: Tensor, of_logs: Tensor) -> tuple[Tensor | None, ...]:
        ours, theirs = ctx.saved_tensors
        pairs = ((ours, theirs), (theirs, ours))
        return tuple(
            _slope(*pair, of_squares[..., None], of_logs[..., None]) if wanted else None
            for pair, wanted in zip(pairs, ctx.needs_input_grad, strict=True)
        )


def _slope(power: Tensor, other: Tensor, of_squares: Tensor, of_logs: Tensor) -> Tensor:
    """Slope of the two distances of `_Apart` by one of the powers."""
    p = power.clamp(min=STFT_CLAMP)
    ratio = other.clamp(min=STFT_CLAMP) / p
    slope = of_squares * (1 - ratio.sqrt()) + 0.5 * of_logs * (1 - ratio).sign() / p
    return slope.masked_fill(power < STFT_CLAMP, 0.0)


def _power(spectrum: Tensor) -> Tensor:
    return squared_magnitude(spectrum) + POWER_FLOOR


def _magnitude(spectrum: Tensor) -> Tensor:
    return _power(spectrum).sqrt()


def _compressed(spectrum: Tensor, c: float) -> tuple[Tensor, Tensor]:
    """Magnitude to the power of c, and the complex value of that magnitude."""
    floored = _power(spectrum)
    size = floored.pow(0.5 * c)
    return size, spectrum * (size * floored.rsqrt())
