"""Short-time Fourier transform and masks for padded batches, shared by losses and models.

Front end: 512-point frames, hop 256, periodic square-root Hann window (analysis and synthesis multiply to a Hann
window, which adds up to 1), centred, padded with zeros, unnormalised. Zeros, because reflection raises on clips shorter
than half a window; and a clip shorter than one window is padded up to one.
"""

from __future__ import annotations

import functools

import torch
from torch import nn

from harness.errors import UserError

N_FFT = 512
HOP = 256
POWER_FLOOR = 1e-12  # square of a magnitude of 1e-6: silence has a finite logarithm, root and slope


def stft(signal: torch.Tensor, n_fft: int = N_FFT, hop: int = HOP) -> torch.Tensor:
    """Complex spectrum of (..., samples): (..., n_fft // 2 + 1, frames), with `frame_counts(samples)` frames."""
    if not 0 < hop <= n_fft:
        raise UserError(f"hop = {hop} must be from 1 to n_fft = {n_fft}, or samples between frames are lost")
    shape = signal.shape
    rows = nn.functional.pad(signal.reshape(-1, shape[-1]), (0, max(0, n_fft - shape[-1])))
    spectrum = torch.stft(
        rows,
        n_fft,
        hop,
        window=window(n_fft, signal.device, signal.dtype),
        center=True,
        pad_mode="constant",
        return_complex=True,
    )
    return spectrum.reshape(*shape[:-1], *spectrum.shape[-2:])


def istft(spectrum: torch.Tensor, length: int, n_fft: int = N_FFT, hop: int = HOP) -> torch.Tensor:
    """Inverse of `stft`: (..., n_fft // 2 + 1, frames) to (..., length) samples. Frames must overlap by half or more.

    The samples behind the last frame's centre lie in one frame only, so an *altered* spectrum is loud there: where
    `length` is no multiple of `hop`, pad the signal up to one before `stft` (`pad_to_hop`).

    To the last bit what `torch.istft` gives, without its look at the smallest sum of windows: at each look a GPU is waited for.
    """
    if not 0 < hop <= n_fft // 2:
        raise UserError(f"hop = {hop} must be from 1 to n_fft / 2 = {n_fft // 2}, or windows do not add up")
    shape, curve = spectrum.shape, window(n_fft, spectrum.device, spectrum.real.dtype)
    pieces = torch.fft.irfft(spectrum.reshape(-1, *shape[-2:]).mT, n_fft) * curve
    # A clip padded up to one window is cut here.
    inside = slice(n_fft // 2, n_fft // 2 + length)
    rows = _overlapped(pieces, hop)[:, inside] / _overlapped(curve.square().expand(1, shape[-1], n_fft), hop)[:, inside]
    return nn.functional.pad(rows, (0, length - rows.shape[-1])).reshape(*shape[:-2], length)


def _overlapped(pieces: torch.Tensor, hop: int) -> torch.Tensor:
    """(batch, frames, n_fft) to the sum of the frames, each `hop` behind the one before: (batch, samples)."""
    samples = pieces.shape[-1] + hop * (pieces.shape[-2] - 1)
    return torch.ops.aten.unfold_backward(pieces, [len(pieces), samples], 1, pieces.shape[-1], hop)


def pad_to_hop(signal: torch.Tensor, hop: int = HOP) -> torch.Tensor:
    """(..., samples) with zeros behind, up to the next multiple of `hop`."""
    return nn.functional.pad(signal, (0, -signal.shape[-1] % hop))


def power(spectrum: torch.Tensor) -> torch.Tensor:
    """re² + im² + 1e-12, of the spectrum's shape."""
    return spectrum.real.square() + spectrum.imag.square() + POWER_FLOOR


def magnitude(spectrum: torch.Tensor) -> torch.Tensor:
    """sqrt(power), at least 1e-6. Unlike abs(), its slope is finite at zero."""
    return power(spectrum).sqrt()


def sample_mask(lengths: torch.Tensor, samples: int) -> torch.Tensor:
    """(batch, samples), True where a sample is valid. lengths: (batch,) samples."""
    return torch.arange(samples, device=lengths.device) < lengths[:, None]


def mask_samples(signal: torch.Tensor, lengths: torch.Tensor | None) -> torch.Tensor:
    """(batch, samples) or (batch, channels, samples) with zeros behind `lengths`, whatever the padding held."""
    if lengths is None:
        return signal
    mask = sample_mask(lengths, signal.shape[-1])
    return signal.masked_fill(~(mask if signal.dim() == 2 else mask[:, None]), 0.0)


def frame_counts(lengths: torch.Tensor, n_fft: int = N_FFT, hop: int = HOP) -> torch.Tensor:
    """Valid frames of clips of these lengths, (batch,): as many as `stft` makes of each clip alone.

    Frame k is centred on sample k*hop and valid when that is no later than the clip's end, so 1 + lengths // hop. One
    more frame may start before the end, but the clip alone does not have it, and every sample is in a valid one.
    """
    return 1 + lengths.clamp(min=n_fft) // hop


def frame_mask(lengths: torch.Tensor, frames: int, n_fft: int = N_FFT, hop: int = HOP) -> torch.Tensor:
    """(batch, frames), True where a frame of `stft` is valid. lengths: (batch,) samples."""
    return torch.arange(frames, device=lengths.device) < frame_counts(lengths, n_fft, hop)[:, None]


@functools.lru_cache(maxsize=32)
def window(n_fft: int, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """Periodic square-root Hann window, (n_fft,)."""
    # A tensor made in inference mode could not be used in a backward pass later, and this one is kept.
    with torch.inference_mode(False):
        return torch.hann_window(n_fft, periodic=True, device=device, dtype=dtype).sqrt()
