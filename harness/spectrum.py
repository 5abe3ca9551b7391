"""Spectra for losses: short-time Fourier transforms with a cheap backward pass, means over them, and mel filters.

The numbers are those of `signal.stft`. What differs is the cost: frames lie behind each other, (batch, frames, bins); only
the samples under the window are copied; and the backward pass is one inverse real transform of each frame and an
overlap-add, where torch's own takes a complex transform of twice the size and scatters single samples. With several
resolutions of an overlap of five that is most of the cost of a training step.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch.nn import functional

from harness.errors import UserError
from harness.signal import HOP, N_FFT, frame_mask, window

SAMPLE_RATE = 16_000  # of the mel scale, which is the only thing here that knows of seconds


def spectrum(
    signal: torch.Tensor, n_fft: int = N_FFT, hop: int = HOP, frame: torch.Tensor | None = None
) -> torch.Tensor:
    """Complex spectrum of (batch, samples): (batch, frames, n_fft // 2 + 1), frames as `signal.frame_counts` has them.

    frame: window of up to n_fft samples, the square-root Hann window of n_fft samples if none is given; a shorter one is
    centred in the n_fft samples, as torch does, but phases count from its own start.
    """
    frame = window(n_fft, signal.device, signal.dtype) if frame is None else frame
    if not 0 < hop <= len(frame) <= n_fft:
        raise UserError(
            f"hop = {hop} must be from 1 to the window's {len(frame)} samples, and these at most n_fft = {n_fft}"
        )
    signal = functional.pad(signal, (0, max(0, n_fft - signal.shape[-1])))
    return _Spectrum.apply(signal, frame, n_fft, hop)


def squared_magnitude(spectrum: torch.Tensor) -> torch.Tensor:
    """re² + im², real, of the spectrum's shape."""
    return _SquaredMagnitude.apply(spectrum)


def valid_frames(frames: torch.Tensor, lengths: torch.Tensor | None, n_fft: int, hop: int) -> torch.Tensor:
    """(batch, frames) with zeros in the frames of the padding."""
    if lengths is None:
        return frames
    return frames.masked_fill(~frame_mask(lengths, frames.shape[-1], n_fft, hop), 0.0)


def mean_over_frames(
    cells: torch.Tensor, lengths: torch.Tensor | None, n_fft: int = N_FFT, hop: int = HOP
) -> torch.Tensor:
    """Mean of (batch, frames, bins or bands) over bins and over the frames that are not padding, (batch,)."""
    frames = cells.mean(-1)
    if lengths is None:
        return frames.mean(-1)
    valid = frame_mask(lengths, frames.shape[-1], n_fft, hop)
    return frames.masked_fill(~valid, 0.0).sum(-1) / valid.sum(-1)


class _Spectrum(torch.autograd.Function):
    """signal (batch, samples), window (width,) -> (batch, frames, bins). Linear, so nothing is kept but the window."""

    @staticmethod
    def forward(ctx: Any, signal: torch.Tensor, frame: torch.Tensor, n_fft: int, hop: int) -> torch.Tensor:
        width, samples = len(frame), signal.shape[-1]
        # Zeros before the first sample, so that frame k is centred on sample k * hop.
        before = n_fft // 2 - (n_fft - width) // 2
        frames = 1 + samples // hop
        ctx.save_for_backward(frame)
        ctx.n_fft, ctx.hop, ctx.before, ctx.samples = n_fft, hop, before, samples
        behind = (frames - 1) * hop + width - before - samples  # below zero where the last samples are in no frame
        overlapping = functional.pad(signal, (before, behind)).unfold(-1, width, hop)
        if width == n_fft:
            return torch.fft.rfft(overlapping * frame)
        # Written into zeros: letting the transform pad the frames costs more than the transform.
        padded = signal.new_zeros(*overlapping.shape[:-1], n_fft)
        torch.mul(overlapping, frame, out=padded[..., :width])
        return torch.fft.rfft(padded)

    @staticmethod
    def backward(ctx: Any, slope: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        (frame,) = ctx.saved_tensors
        # The inverse real transform counts each bin twice, as itself and as its mirror image, but for the first and last.
        inner = torch.fft.irfft(slope, n=ctx.n_fft, norm="forward")[..., : len(frame)] + slope.real[..., :1]
        if ctx.n_fft % 2 == 0:
            inner = torch.addcmul(inner, slope.real[..., -1:], _alternating(len(frame), inner.device, inner.dtype))
        added = _overlap_add(inner * (0.5 * frame), ctx.hop)
        return functional.pad(added, (-ctx.before, ctx.before + ctx.samples - added.shape[-1])), None, None, None


class _SquaredMagnitude(torch.autograd.Function):
    """One product forward and one backward, where autograd builds a complex tensor of zeros for either part."""

    @staticmethod
    def forward(ctx: Any, spectrum: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(spectrum)
        squares = torch.view_as_real(spectrum).square()
        return squares[..., 0] + squares[..., 1]

    @staticmethod
    def backward(ctx: Any, slope: torch.Tensor) -> torch.Tensor:
        (spectrum,) = ctx.saved_tensors
        return spectrum * (2 * slope)


def _overlap_add(frames: torch.Tensor, hop: int) -> torch.Tensor:
    """Frames (batch, frames, width) added up at distances of hop, (batch, samples): one step per overlap, not per frame."""
    batch, count, width = frames.shape
    overlaps = -(-width // hop)
    added = frames.new_zeros(batch, count + overlaps - 1, hop)
    for step in range(overlaps):
        piece = frames[..., step * hop : (step + 1) * hop]
        added[:, step : step + count, : piece.shape[-1]] += piece
    return added.flatten(1)


@functools.lru_cache(maxsize=32)
def hann(width: int, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """Periodic Hann window, (width,)."""
    with torch.inference_mode(False):  # a tensor of inference mode could not be used in a backward pass later
        return torch.hann_window(width, periodic=True, device=device, dtype=dtype)


@functools.lru_cache(maxsize=32)
def _alternating(width: int, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """1, -1, 1, ...: the wave of the last bin."""
    with torch.inference_mode(False):
        return (1 - 2 * (torch.arange(width, device=device) % 2)).to(dtype)


@functools.lru_cache(maxsize=32)
def mel_filters(
    n_mels: int, f_min: float, f_max: float, n_fft: int, device: torch.device, dtype: torch.dtype
) -> torch.Tensor:
    """Triangles of height 1 with equal steps on the HTK mel scale, (n_fft // 2 + 1, n_mels). f_min, f_max: in Hz."""
    with torch.inference_mode(False):
        low, high = (2595.0 * torch.log10(1 + torch.tensor([f_min, f_max], dtype=torch.float64) / 700)).tolist()
        corners = 700 * (10 ** (torch.linspace(low, high, n_mels + 2, dtype=torch.float64) / 2595) - 1)
        bins = torch.arange(n_fft // 2 + 1, dtype=torch.float64)[:, None] * SAMPLE_RATE / n_fft
        rising = (bins - corners[:-2]) / (corners[1:-1] - corners[:-2])
        falling = (corners[2:] - bins) / (corners[2:] - corners[1:-1])
        return torch.minimum(rising, falling).clamp(min=0).to(device, dtype)
