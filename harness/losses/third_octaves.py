"""The front end of STOI: speech at 10 kHz without its silent frames, as magnitudes in third-octave bands.

Equal to pystoi (Taal et al. 2011), for a whole batch and with a gradient. Frames have 256 samples and overlap by half, so
a signal is kept as blocks of 128 samples, two neighbours of which make a frame.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from harness.losses.bands import Bands, band_power
from harness.signal import sample_mask

RATE = 10_000
BLOCK = 128
N_FFT = 512
BANDS = 15
SEGMENT = 30  # frames, 384 ms
QUIET = 1e-4  # a frame whose energy is 40 dB below the loudest one's is silence
FLOOR = 1e-14  # of a signal's mean power in a band: roots stay smooth where it pauses
SILENT = 1e-30  # mean power in a band below which there is no signal
GROUP = 16  # periods of the resampler that one product makes: two blocks of 128 samples in, 80 out at 16 kHz


def third_octaves(
    estimate: Tensor, clean: Tensor, lengths: Tensor | None, sample_rate: int, vad: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Magnitudes of both signals in third-octave bands, each relative to the root mean square of its own.

    estimate, clean: (batch, samples), zeros behind `lengths` (batch,). vad leaves out the frames in which the clean
    signal is 40 dB below its loudest. Returns two (batch, bands, frames), SEGMENT frames at least, of which the first
    so many are valid: (batch,). Only the estimate's has a gradient.
    """
    window, bands = _window(clean.device, clean.dtype), _bands(clean.device, clean.dtype)
    with torch.no_grad():
        target = _blocks(clean, sample_rate)
        inside = _inside(lengths, clean, sample_rate, target.shape[1] - 1)
        keep = _loud(target, window, inside) if vad else inside
    blocks = _blocks(estimate, sample_rate)
    count = keep.sum(-1)
    if vad:
        order = keep.to(torch.uint8).argsort(dim=-1, descending=True, stable=True)
        with torch.no_grad():
            target = _joined(target, order, window)
        blocks = _joined(blocks, order, window)
        count = (count - 1).clamp(min=0)  # pystoi leaves the last frame of what is joined
    valid = sample_mask(count, blocks.shape[1] - 1)

    def magnitude(blocks: Tensor) -> Tensor:
        (power,) = band_power(blocks, window, [bands], N_FFT)
        level = power.detach().masked_fill(~valid[..., None], 0.0).sum((1, 2)) / (BANDS * count.clamp(min=1))
        scale = torch.where(level > SILENT, 1 / level.clamp(min=SILENT), 0.0)
        # Silence is 0, so that nothing can be made of it by scaling.
        return ((power * scale[:, None, None] + FLOOR).sqrt() - FLOOR**0.5).mT.contiguous()

    with torch.no_grad():
        x = magnitude(target)
    return magnitude(blocks), x, count


def resample(signal: Tensor, sample_rate: int) -> Tensor:
    """(batch, samples) at 10 kHz by Octave's filter, as pystoi does; some more samples follow the last that is meant."""
    if sample_rate == RATE:
        return signal
    matrix, lead, spans = _resampler(sample_rate, signal.device, signal.dtype)
    step = len(matrix)
    groups = -(-signal.shape[-1] // step)
    padded = nn.functional.pad(signal, (lead, (groups + spans - 1) * step - lead - signal.shape[-1]))
    # Each stretch of the input meets the parts of the filter that reach into the outputs of itself and of those before.
    parts = (padded.view(-1, step) @ matrix).view(len(signal), groups + spans - 1, spans, -1)
    out = parts[:, :groups, 0]
    for span in range(1, spans):
        out = out + parts[:, span : groups + span, span]
    return out.flatten(1)


def _blocks(signal: Tensor, sample_rate: int) -> Tensor:
    """(batch, blocks, BLOCK) at 10 kHz, enough of them for one segment."""
    up, down = _ratio(sample_rate)
    blocks = max(SEGMENT + 2, -(-signal.shape[-1] * up // (down * BLOCK)))
    resampled = resample(signal, sample_rate)
    return nn.functional.pad(resampled, (0, blocks * BLOCK - resampled.shape[-1])).view(-1, blocks, BLOCK)


def _inside(lengths: Tensor | None, signal: Tensor, sample_rate: int, frames: int) -> Tensor:
    """(batch, frames), True for those of the clip alone; like pystoi's, they start before the last that would fit."""
    if lengths is None:
        lengths = torch.full(signal.shape[:1], signal.shape[-1], device=signal.device)
    up, down = _ratio(sample_rate)
    samples = (lengths * up + down - 1) // down
    return torch.arange(frames, device=signal.device) * BLOCK < (samples - 2 * BLOCK)[:, None]


def _loud(blocks: Tensor, window: Tensor, inside: Tensor) -> Tensor:
    """(batch, frames), True where a frame is not silence."""
    halves = blocks.square() @ window.square().view(2, BLOCK).mT
    energy = (halves[:, :-1, 0] + halves[:, 1:, 1]).masked_fill(~inside, 0.0)
    return energy > QUIET * energy.amax(-1, keepdim=True)


def _joined(blocks: Tensor, order: Tensor, window: Tensor) -> Tensor:
    """Windowed frames in that order, overlapped and added again: (batch, blocks - 1, BLOCK).

    blocks: (batch, blocks, BLOCK); order: (batch, blocks - 1) frames. The half that would follow the last frame is left
    out, for no frame of the result needs it.
    """
    heads, tails = _Reordered.apply(blocks[:, :-1], order), _Reordered.apply(blocks[:, 1:], order)
    return heads * window[:BLOCK] + nn.functional.pad(tails[:, :-1] * window[BLOCK:], (0, 0, 1, 0))


class _Reordered(torch.autograd.Function):
    """rows[b, order[b, i]] of (batch, rows, samples). Order is a permutation, so the gradient is read, not scattered."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, order: Tensor) -> Tensor:
        ctx.save_for_backward(order)
        return _take(rows, order)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (order,) = ctx.saved_tensors
        return _take(gradients[0], order.argsort(-1)), None


def _take(rows: Tensor, order: Tensor) -> Tensor:
    starts = torch.arange(len(rows), device=rows.device)[:, None] * rows.shape[1]
    return rows.flatten(0, 1).index_select(0, (starts + order).flatten()).view_as(rows)


def _ratio(sample_rate: int) -> tuple[int, int]:
    shared = math.gcd(RATE, sample_rate)
    return RATE // shared, sample_rate // shared


def _constant(array: np.ndarray, device: torch.device, dtype: torch.dtype) -> Tensor:
    # A tensor made in inference mode could not be used in a backward pass later, and these are kept.
    with torch.inference_mode(False):
        return torch.from_numpy(array).to(device, dtype)


@functools.lru_cache(maxsize=32)
def _window(device: torch.device, dtype: torch.dtype) -> Tensor:
    return _constant(np.hanning(2 * BLOCK + 2)[1:-1], device, dtype)


@functools.lru_cache(maxsize=32)
def _bands(device: torch.device, dtype: torch.dtype) -> Bands:
    """Third octaves: centres 150 Hz * 2^(k/3), edges on bins."""
    bins = np.linspace(0, RATE, N_FFT + 1)[: N_FFT // 2 + 1]
    edges = [
        [int(np.argmin(np.square(bins - 150 * 2 ** ((2 * k + side) / 6)))) for side in (-1, 1)] for k in range(BANDS)
    ]
    first, last = edges[0][0], edges[-1][1]
    weights = np.zeros((last - first, BANDS))
    for band, (low, high) in enumerate(edges):
        weights[low - first : high - first, band] = 1
    return Bands(first, _constant(weights, device, dtype))


@functools.lru_cache(maxsize=32)
def _resampler(sample_rate: int, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, int, int]:
    """Octave's polyphase filter as a matrix from a stretch of input to the outputs that it, and those before it, make.

    Returns (step, spans * outputs), the zeros to put before the signal, and spans.
    """
    up, down = _ratio(sample_rate)
    # 60 dB of rejection, cut off at the lower of both Nyquist frequencies, rolling off over a tenth of it.
    cutoff = 1 / (2 * max(up, down))
    half = math.ceil((60 - 8) / (28.714 * cutoff / 10))
    taps = np.kaiser(2 * half + 1, 0.1102 * (60 - 8.7)) * np.sinc(2 * cutoff * np.arange(-half, half + 1))
    taps *= up / taps.sum()
    step, outputs, lead = down * GROUP, up * GROUP, half // up
    spans = -(-(lead + (down * (outputs - 1) + half) // up + 1) // step)
    place = half + down * np.arange(outputs) - up * (np.arange(spans * step) - lead)[:, None]
    matrix = np.where((place >= 0) & (place <= 2 * half), taps[place.clip(0, 2 * half)], 0.0)
    matrix = matrix.reshape(spans, step, outputs).transpose(1, 0, 2).reshape(step, -1)
    return _constant(matrix, device, dtype), lead, spans
