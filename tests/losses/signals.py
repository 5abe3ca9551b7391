"""The two golden inputs, in float64: reproducible anywhere, so that other code can be compared on them."""

import math

import numpy as np
import scipy.signal
import torch

TINY_ESTIMATE = torch.tensor([[1.0, 2, 3], [4, 5, 6]], dtype=torch.float64)
TINY_CLEAN = torch.tensor([[2.0, 3, 4], [4, 0, 6]], dtype=torch.float64)


def speech_like() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Clean, noisy at 5 dB and estimate = 0.8 noisy, each (1, 48000): 3 s at 16 kHz with silent stretches."""
    samples = 48000
    t = np.arange(samples) / 16000
    phase = 2 * np.pi * np.cumsum(120 * (1 + 0.1 * np.sin(2 * np.pi * 0.7 * t))) / 16000
    voice = sum(np.sin(k * phase + 0.3 * k) / k for k in range(1, 28))
    envelope = np.maximum(0.55 + 0.45 * np.sin(2 * np.pi * 4 * t), 0) * (np.sin(2 * np.pi * 0.4 * t) > -0.6)
    voice = voice * envelope + 0.02 * np.random.RandomState(1).standard_normal(samples) * envelope
    clean = 0.5 * voice / np.abs(voice).max()
    noise = np.random.RandomState(0).standard_normal(samples)
    noisy = clean + noise * math.sqrt((clean**2).sum() / (noise**2).sum() * 10**-0.5)
    return tuple(torch.from_numpy(signal)[None] for signal in (clean, noisy, 0.8 * noisy))


CLEAN, NOISY, ESTIMATE = speech_like()
SILENCE = torch.zeros_like(CLEAN)
CLICK = torch.zeros_like(CLEAN)
CLICK[:, 100] = 0.5


def corner(name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Estimate and target of a corner case."""
    estimate = {
        "silent estimate": SILENCE,
        "both silent": SILENCE,
        "perfect": CLEAN,
        "inverted": -CLEAN,
        "click": CLICK,
    }
    return estimate.get(name, ESTIMATE), SILENCE if name in ("silent target", "both silent") else CLEAN


def altered() -> dict[str, torch.Tensor]:
    """The clean signal altered in known ways, each (1, 48000): what each loss forgives."""
    clean, samples = CLEAN[0].numpy(), CLEAN.shape[-1]
    noise = np.random.RandomState(0).standard_normal(samples)
    made = {
        "perfect": clean,
        "hilbert": np.imag(scipy.signal.hilbert(clean)),
        "inverted": -clean,
        "quieter": 0.1 * clean,
        "offset": clean + 0.05,
        "5 late": np.roll(clean, 5),
        "5 early": np.roll(clean, -5),
        "160 late": np.roll(clean, 160),
        "noise": noise * np.sqrt((clean**2).sum() / (noise**2).sum()),
        "mixture": NOISY[0].numpy(),
        "zeros": np.zeros(samples),
    }
    for taps in (8, 128, 512):
        response = np.random.RandomState(taps).standard_normal(taps) * np.exp(-np.arange(taps) / (taps / 4 + 1))
        response[0] = 1
        made[f"{taps} taps"] = np.convolve(clean, response)[:samples]
    return {name: torch.from_numpy(np.ascontiguousarray(signal))[None] for name, signal in made.items()}


def close(value: torch.Tensor, expected: object, tolerance: float = 1e-6) -> None:
    torch.testing.assert_close(value, torch.tensor(expected, dtype=value.dtype), rtol=tolerance, atol=tolerance)


def value_and_gradient(loss, estimate, *others, **settings) -> tuple[float, float]:
    """Value of one item and the norm of its gradient by the estimate."""
    estimate = estimate.clone().requires_grad_()
    value = loss(estimate, *others, **settings)
    value.sum().backward()
    return value.item(), estimate.grad.norm().item()
