"""Noises: recorded, babble cut from speech, or shaped random numbers. Each draws a plan (integers) and renders it.

A plan row is all that is needed to make one noise again, so a test list can hold it and be hashed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch

from harness.data.audio import SAMPLE_RATE
from harness.data.bank import Bank
from harness.data.corpora import Card

COLOURS = {"white": 0.0, "pink": 1.0, "brown": 2.0, "modulated": 0.0}  # power falls as 1 / f ** exponent
MODULATION_HZ = 6.0
LOWEST_HZ = 40.0  # pink and brown are flat below: what lies there is unheard and would take all of the power


class Noise(Protocol):
    """One kind of noise."""

    def draw(self, split: str, rng: np.random.Generator, items: int, samples: int) -> np.ndarray:
        """A plan: (items, integers)."""

    def render(self, plan: np.ndarray, samples: int, device: torch.device) -> torch.Tensor:
        """The noises of a plan: (items, samples) float32 at any level."""


@dataclass(frozen=True)
class Recorded:
    """Windows of a noise corpus, split by recording."""

    bank: Bank

    def draw(self, split: str, rng: np.random.Generator, items: int, samples: int) -> np.ndarray:
        return self.bank.draw(split, rng, (items, 1), samples)

    def render(self, plan: np.ndarray, samples: int, device: torch.device) -> torch.Tensor:
        return self.bank.cut(plan[:, 0], samples, device)


@dataclass(frozen=True)
class Babble:
    """Talkers of the same split, brought to equal level and summed."""

    speech: Bank
    talkers: int

    def draw(self, split: str, rng: np.random.Generator, items: int, samples: int) -> np.ndarray:
        return self.speech.draw(split, rng, (items, self.talkers), samples)

    def holds(self, plan: np.ndarray, samples: int, start: int) -> bool:
        """Whether a talker of one plan row speaks the very recording at `start`, as long as the noise."""
        return bool((np.abs(plan - start) < samples).any())

    def render(self, plan: np.ndarray, samples: int, device: torch.device) -> torch.Tensor:
        voices = self.speech.cut(plan, samples, device)
        level = torch.linalg.vector_norm(voices, dim=-1) / samples**0.5
        return torch.bmm(1 / (level + 1e-4)[:, None], voices)[:, 0]


@dataclass(frozen=True)
class Shaped:
    """Gaussian noise with a given spectrum, made fresh for every item: random spectra times a magnitude, transformed back.

    magnitudes: (shapes, 257) from 0 to 8 kHz. modulated: which of them get a slow envelope.
    """

    magnitudes: np.ndarray
    modulated: tuple[bool, ...]
    _stretched: dict[tuple[int, torch.device], torch.Tensor] = field(default_factory=dict)

    def draw(self, split: str, rng: np.random.Generator, items: int, samples: int) -> np.ndarray:
        return np.stack([rng.integers(0, 2**31, items), rng.integers(0, len(self.magnitudes), items)], 1)

    def render(self, plan: np.ndarray, samples: int, device: torch.device) -> torch.Tensor:
        magnitude = self._magnitude(samples, device)[plan[:, 1]]
        generator = torch.Generator(device).manual_seed(int(plan[0, 0]))
        spectrum = torch.randn(len(plan), magnitude.shape[-1], 2, generator=generator, device=device)
        noise = torch.fft.irfft(torch.view_as_complex(spectrum) * magnitude, n=samples)
        slow = np.array(self.modulated)[plan[:, 1]]
        if slow.any():
            wave = torch.sin(2 * torch.pi * MODULATION_HZ / SAMPLE_RATE * torch.arange(samples, device=device))
            noise *= 1 + torch.tensor(0.9 * slow[:, None], dtype=noise.dtype, device=device) * wave
        return noise

    def _magnitude(self, samples: int, device: torch.device) -> torch.Tensor:
        """The magnitudes on the bins of a transform of so many samples, kept for the last length (training has one)."""
        key = (samples, device)
        if key not in self._stretched:
            shape = torch.tensor(self.magnitudes, dtype=torch.float32, device=device) * samples**0.5
            bins = samples // 2 + 1
            stretched = torch.nn.functional.interpolate(shape[:, None], bins, mode="linear", align_corners=True)[:, 0]
            self._stretched.clear()
            self._stretched[key] = stretched
        return self._stretched[key]


def make(card: Card, speech: Bank, bank: Bank | None) -> Noise:
    """The noise of a card. speech: the corpus that babble and speech-shaped noise are made from; bank: its own recordings."""
    if bank is not None:
        return Recorded(bank)
    if card.maker == "babble":
        return Babble(speech, card.talkers)
    if card.shape == "speech":
        return Shaped(np.sqrt(speech.spectrum())[None], (False,))
    hertz = np.maximum(np.linspace(0, SAMPLE_RATE / 2, 257), LOWEST_HZ)
    magnitudes = np.stack([(hertz / 1000) ** (-exponent / 2) for exponent in COLOURS.values()])
    return Shaped(magnitudes, tuple(name == "modulated" for name in COLOURS))
