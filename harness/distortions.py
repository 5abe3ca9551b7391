"""What may be wrong with an estimate of speech, one thing at a time and by how much: pure functions of a recording and levels.

Each takes speech, (samples,) at 16 kHz, and levels, (levels,), and returns the speech as each level leaves it, (levels,
samples): as long as it was and in step with it, so that a loss is given exactly what the name says.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

RATE = 16_000  # samples a second
TAIL_DB = -6.0  # energy of the reverberant tail at an RT60 of `TAIL_AT`, relative to the direct path
TAIL_AT = 0.3  # seconds
TAIL_FROM = 0.0025  # seconds from the direct path to the first reflection: a detour of 0.85 m
EDGE = 0.06  # width of a low-pass filter's edge as a share of its cutoff


@dataclass(frozen=True)
class Distortion:
    """apply: what it does; levels: that are worth a look, from none to much; unit: of a level; moderate: the level by which
    losses are compared in words."""

    name: str
    apply: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    levels: tuple[float, ...]
    unit: str
    moderate: float


def noise(speech: torch.Tensor, snr: torch.Tensor) -> torch.Tensor:
    """Speech-shaped noise added at an SNR over the whole recording, in dB.

    The noise has the recording's own spectrum at random phases, so that no band is spared. Seeded: the same noise at every
    level.
    """
    spectrum = torch.fft.rfft(speech)
    generator = torch.Generator().manual_seed(0)
    phases = 2 * math.pi * torch.rand(spectrum.shape, generator=generator).to(speech)
    shaped = torch.fft.irfft(torch.polar(spectrum.abs(), phases), n=len(speech))
    gain = _norm(speech) / _norm(shaped) * 10 ** (-snr / 20)
    return speech + gain[:, None] * shaped


def gain(speech: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
    """Louder or softer, in dB."""
    return 10 ** (level[:, None] / 20) * speech


def delay(speech: torch.Tensor, samples: torch.Tensor) -> torch.Tensor:
    """Later by whole samples, 0 or more; zeros come first and the end is lost."""
    place = torch.arange(len(speech)) - samples.long()[:, None]
    return torch.where(place >= 0, speech[place.clamp(min=0)], torch.zeros_like(speech))


def turn(speech: torch.Tensor, degrees: torch.Tensor) -> torch.Tensor:
    """Every component's phase turned by an angle: 180 degrees invert the polarity, 90 are the Hilbert transform."""
    spectrum = torch.fft.rfft(speech)
    angle = torch.deg2rad(degrees)[:, None]
    turned = spectrum * torch.polar(torch.ones_like(angle), angle)
    # What has no phase, the offset and half the sample rate, can only change its sign and size.
    real = [0, -1] if len(speech) % 2 == 0 else [0]
    turned[:, real] = (spectrum[real] * angle.cos()).to(turned.dtype)
    return torch.fft.irfft(turned, n=len(speech))


def low_pass(speech: torch.Tensor, cutoff: torch.Tensor) -> torch.Tensor:
    """Nothing above a cutoff in Hz, up to 8000 (nothing cut), by a filter without phase whose edge is a raised cosine."""
    frequency = torch.fft.rfftfreq(len(speech), 1 / RATE).to(speech)
    beyond = (frequency - cutoff[:, None]) / (EDGE * cutoff[:, None])
    passed = 0.5 * (1 + torch.cos(math.pi * beyond.clamp(0, 1)))
    return torch.fft.irfft(torch.fft.rfft(speech) * passed, n=len(speech))


def clipping(speech: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
    """Cut at a level relative to the peak, in dB: 0 (nothing cut) or less."""
    limit = speech.abs().max() * 10 ** (level[:, None] / 20)
    return torch.minimum(torch.maximum(speech, -limit), limit)


def reverberation(speech: torch.Tensor, rt60: torch.Tensor) -> torch.Tensor:
    """Heard in a room whose sound decays by 60 dB in so many seconds; 0 is no room.

    The impulse response is the direct path, first and of gain 1, and behind it seeded Gaussian noise that decays
    exponentially (Moorer 1979, About this reverberation business). The tail begins equally loud at every RT60, as at one
    distance in rooms of less and less damping: its energy is 6 dB below the direct path's at 0.3 s, and grows with the RT60.
    """
    longest = max(1, math.ceil(1.2 * float(rt60.max()) * RATE))
    generator = torch.Generator().manual_seed(1)
    rough = torch.randn(longest, generator=generator).to(speech)
    time = torch.arange(longest).to(speech) / RATE
    decay = torch.where(rt60[:, None] > 0, 10 ** (-3 * time / rt60[:, None].clamp(min=1e-6)), 0.0)
    # The energy of the decay at TAIL_AT: the integral of its square.
    energy = RATE * TAIL_AT / (6 * math.log(10))
    response = rough * decay * math.sqrt(10 ** (TAIL_DB / 10) / energy) * (time >= TAIL_FROM)
    response[:, 0] = 1.0
    size = len(speech) + longest
    heard = torch.fft.irfft(torch.fft.rfft(speech, n=size) * torch.fft.rfft(response, n=size), n=size)
    return heard[:, : len(speech)]


def _norm(signal: torch.Tensor) -> torch.Tensor:
    return torch.linalg.vector_norm(signal).clamp(min=1e-12)


DISTORTIONS: Sequence[Distortion] = (
    Distortion("noise", noise, (40, 30, 20, 15, 10, 5, 0, -5, -10), "dB SNR", 5),
    Distortion("gain", gain, (-20, -12, -6, -3, 0, 3, 6, 12, 20), "dB", 6),
    Distortion("delay", delay, (0, 1, 2, 4, 8, 16, 32, 128, 512), "samples", 16),
    Distortion("polarity", turn, (0, 15, 30, 45, 60, 90, 120, 150, 180), "degrees of phase", 180),
    Distortion("low-pass", low_pass, (8000, 7000, 6000, 5000, 4000, 3000, 2000, 1000, 500), "Hz", 2000),
    Distortion("clipping", clipping, (0, -3, -6, -9, -12, -18, -24, -30, -40), "dB below the peak", -18),
    Distortion("reverberation", reverberation, (0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0, 1.5), "s of RT60", 0.5),
)
