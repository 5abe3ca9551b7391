"""Losses on the short-time spectrum of waveforms. Waveforms go in; the spectrum is taken inside (`harness.signal`)."""

from __future__ import annotations

from typing import Annotated, Literal

from torch import Tensor

from harness.losses.registry import Range, loss
from harness.signal import frame_mask, magnitude, mask_samples, stft

Fft = Literal[256, 512, 1024, 2048]
Hop = Annotated[int, Range(32, 256, log=True)]  # never longer than a window


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
    """Mean over valid frames and bins of |abs(E) - abs(S)|^p, E and S the spectra; blind to phase.

    estimate, clean: (batch, samples); lengths: (batch,) samples. Returns (batch,).
    """
    estimate_magnitude = magnitude(stft(mask_samples(estimate, lengths), n_fft, hop))
    clean_magnitude = magnitude(stft(mask_samples(clean, lengths), n_fft, hop))
    error = (estimate_magnitude - clean_magnitude).abs()
    return _mean(error if p == 1 else error.square(), lengths, n_fft, hop)


def _mean(cells: Tensor, lengths: Tensor | None, n_fft: int, hop: int) -> Tensor:
    """Mean of (batch, bins, frames) over bins and valid frames, (batch,)."""
    frames = cells.mean(1)
    if lengths is None:
        return frames.mean(-1)
    valid = frame_mask(lengths, frames.shape[-1], n_fft, hop)
    return frames.masked_fill(~valid, 0.0).sum(-1) / valid.sum(-1)
