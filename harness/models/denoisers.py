"""Denoisers: noisy waveform in, estimated clean waveform out."""

from __future__ import annotations

import torch
from torch import nn

from harness import signal
from harness.models.registry import model


@model(gives=("estimate",))
class GruMask(nn.Module):
    """Magnitude mask from a one-layer GRU over log-magnitude frames, on the noisy phase; causal but for the STFT.

    0.26 M parameters. The mask lies in [0, 1]: `mask_max` is also where the oracle masks are cut.
    """

    mask_max = 1.0

    def __init__(self, hidden: int = 168) -> None:
        super().__init__()
        bins = signal.N_FFT // 2 + 1
        self.gru = nn.GRU(bins, hidden, batch_first=True)
        self.mask = nn.Linear(hidden, bins)

    def forward(self, noisy: torch.Tensor) -> dict[str, torch.Tensor]:
        """noisy: (batch, samples). Returns estimate, (batch, samples)."""
        spectrum = signal.stft(signal.pad_to_hop(noisy))
        # Log magnitudes of speech at -35..-20 dBFS lie around -1.5 with a spread of 2.5 after the shift and scale.
        features = 0.4 * (signal.magnitude(spectrum) + 1e-3).log() + 1.5
        hidden, _ = self.gru(features.transpose(1, 2))
        mask = self.mask_max * torch.sigmoid(self.mask(hidden)).transpose(1, 2)
        return {"estimate": signal.istft(spectrum * mask, noisy.shape[-1])}

    def shared_parameters(self) -> list[nn.Parameter]:
        return list(self.mask.parameters())
