"""Convolutive-transfer-function-invariant SDR: any short filter of the target, a room or a microphone, is forgiven."""

from __future__ import annotations

import functools
from typing import Annotated, Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from harness.losses.energy import Eps, MaxDb
from harness.losses.registry import Range, loss
from harness.signal import mask_samples

BLOCK = 512  # samples, or the filter's next power of two: transforms of twice that fit the cache
# Steps of the solver: to 1e-5 dB on speech, 1e-3 dB where a brick-wall filter has emptied half of the band; and to the end.
STEPS = {torch.float32: 48, torch.float64: 128}
CORRECTION_SHARE = 4  # fewer of them for a part of the gradient that is a thousandth of it


# No metric of the harness forgives filters, and such a model may well lose SI-SDR: hence no target metric.
@loss(
    minimum=lambda max_db, **_: -max_db,
    unit="dB",
    reference="Boeddeker et al. 2021, Convolutive transfer function invariant SDR training criteria, arXiv 2011.15003",
)
def ci_sdr(
    estimate: Tensor,
    clean: Tensor,
    lengths: Tensor | None = None,
    *,
    filter_length: Annotated[int, Range(1, 2048, log=True)] = 512,
    max_db: MaxDb = 30.0,
    eps: Eps = 1e-10,
    load: Annotated[float, Range(0, 1e-3)] = 1e-6,
) -> Tensor:
    """SDR against the causal filter of the target that comes closest, negated: -10 log10(|h*s|² / |h*s - e|²).

    estimate, clean: (batch, samples); lengths: (batch,) samples. Returns (batch,) dB, at least -max_db. h has
    filter_length taps and is the least-squares solution, with load times the target's energy on the diagonal of its
    equations; so a delay below filter_length costs nothing, an advance does. The SDR of BSSEval v3 but for the guards.
    """
    estimate, clean = mask_samples(estimate, lengths), mask_samples(clean, lengths)
    samples = clean.new_full(clean.shape[:1], max(1, clean.shape[-1])) if lengths is None else lengths.clamp(min=1)
    floor = eps * samples.to(clean.dtype)
    target, error = _Projection.apply(estimate, clean, floor, filter_length, load)
    return -10 * torch.log10((target + floor) / (error + 10.0 ** (-max_db / 10) * target + floor))


class _Projection(torch.autograd.Function):
    """Energies of u = h*s and of u - e, (batch,) each; gradient by e alone.

    With S the convolution by s and M = S'S + d, the filter is h = (S'e + floor at tap 0) / M. Since u = Sh and S'S = M - d,
    the derivatives of |u|² and |u - e|² by e need one more solution of M and one more convolution, not the derivative of
    the first solution: half of each is S(h - d h/M) and e - S(h + d h/M - floor/M).
    """

    @staticmethod
    def forward(
        ctx: Any, estimate: Tensor, clean: Tensor, floor: Tensor, taps: int, load: float
    ) -> tuple[Tensor, Tensor]:
        size = max(BLOCK, 1 << (taps - 1).bit_length())
        blocks = -(-(clean.shape[-1] + taps - 1) // size)
        target, estimate = (
            nn.functional.pad(signal, (0, blocks * size - signal.shape[-1])).unflatten(-1, (blocks, size))
            for signal in (clean, estimate)
        )
        spectrum = torch.fft.rfft(target, n=2 * size)
        # A block with the one before it, at negative times: the circle is full and nothing wraps onto it.
        history = spectrum.clone()
        history[:, 1:] += spectrum[:, :-1] * _alternating(size + 1, clean.device, clean.dtype)
        mirrored = history.conj().resolve_conj()  # once, for both products
        correlation = _first_lags((mirrored * spectrum).sum(1), taps)
        cross = _first_lags((mirrored * torch.fft.rfft(estimate, n=2 * size)).sum(1), taps)
        energy, floor = correlation[:, :1].clone(), floor.double()[:, None]
        diagonal = load * energy + floor
        correlation[:, :1] += diagonal
        cross[:, :1] += floor
        solver = _Toeplitz(correlation)
        weights = solver.solve(cross, STEPS[clean.dtype])
        projected = _filtered(weights, history)
        ctx.save_for_backward(estimate, history, weights, diagonal, floor)
        ctx.solver, ctx.samples = solver, clean.shape[-1]
        return projected.square().sum((1, 2)), (projected - estimate).square().sum((1, 2))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        estimate, history, weights, diagonal, floor = ctx.saved_tensors
        by_target, by_error = (gradient.double()[:, None] for gradient in gradients)
        right = (by_target + by_error) * diagonal * weights
        right[:, :1] -= by_error * floor
        combined = (by_target - by_error) * weights - ctx.solver.solve(right, STEPS[estimate.dtype] // CORRECTION_SHARE)
        slope = _filtered(combined, history) + estimate * gradients[1][:, None, None]
        return 2 * slope.flatten(1)[:, : ctx.samples], None, None, None, None


class _Toeplitz:
    """Symmetric positive definite Toeplitz systems, by preconditioned conjugate gradients in float64.

    The preconditioner divides by the spectrum under a Parzen window: its transform has no negative values, so the smoothed
    spectrum stays as far from zero as the true one, and its side lobes fall fast enough for the dynamic range of speech.
    """

    def __init__(self, column: Tensor) -> None:
        """column: (batch, taps), the first of each matrix."""
        self.scale = column[:, :1].clamp(min=1e-300)
        column = column / self.scale
        self.taps = column.shape[1]
        self.circle = 2 * (1 << (self.taps - 1).bit_length())
        self.spectrum = self._spectrum(column)
        self.inverse = 1 / self._spectrum(column * _parzen(self.taps, column.device)).clamp(min=1e-12)

    def _spectrum(self, column: Tensor) -> Tensor:
        gap = column.new_zeros(len(column), self.circle - 2 * self.taps + 1)
        return torch.fft.rfft(torch.cat([column, gap, column[:, 1:].flip(-1)], -1)).real

    def _times(self, spectrum: Tensor, vector: Tensor) -> Tensor:
        return torch.fft.irfft(torch.fft.rfft(vector, n=self.circle) * spectrum, n=self.circle)[:, : self.taps]

    def solve(self, right: Tensor, steps: int) -> Tensor:
        """(batch, taps) to (batch, taps), in that many steps."""
        residual = right / self.scale
        solution = torch.zeros_like(residual)
        direction = self._times(self.inverse, residual)
        product = (residual * direction).sum(-1, keepdim=True)
        for _ in range(min(steps, self.taps)):
            image = self._times(self.spectrum, direction)
            curvature = (direction * image).sum(-1, keepdim=True)
            # Nothing is left to do where the direction has vanished; NaN stays NaN, in its own item.
            step = torch.where(curvature <= 0, 0.0, product / curvature)
            solution = torch.addcmul(solution, step, direction)
            residual = torch.addcmul(residual, -step, image)
            next_direction = self._times(self.inverse, residual)
            next_product = (residual * next_direction).sum(-1, keepdim=True)
            turn = torch.where(product <= 0, 0.0, next_product / product)
            direction, product = torch.addcmul(next_direction, turn, direction), next_product
        return solution


def _first_lags(spectrum: Tensor, taps: int) -> Tensor:
    """Correlation at lags 0..taps-1, (batch, taps), in float64: rounding here would make the matrix indefinite."""
    return torch.fft.irfft(spectrum.to(torch.complex128))[:, :taps]


def _filtered(weights: Tensor, history: Tensor) -> Tensor:
    """Blocks of the target filtered with (batch, taps) weights: (batch, blocks, samples)."""
    size = history.shape[-1] - 1
    response = torch.fft.rfft(weights.to(history.real.dtype), n=2 * size)[:, None]
    return torch.fft.irfft(response * history, n=2 * size)[..., :size]


@functools.lru_cache(maxsize=32)
def _alternating(count: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """1, -1, 1, ...: the spectrum of a delay by half the circle."""
    with torch.inference_mode(False):
        return 1 - 2 * (torch.arange(count, device=device) % 2).to(dtype)


@functools.lru_cache(maxsize=32)
def _parzen(taps: int, device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        place = torch.arange(taps, device=device, dtype=torch.float64) / taps
        return torch.where(place < 0.5, 1 - 6 * place.square() * (1 - place), 2 * (1 - place) ** 3)
