"""Denoisers: noisy waveform in, estimated clean waveform out.

The `_pair` variants estimate the noise as well, freely and not as the rest of the mixture, and give both as `estimates`. They
are models of their own, so that every loss of a table trains the same parameters from the same initial values, whether it
asks for the noise (`sa_sdr`) or not.
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import nn

from harness import signal
from harness.models.registry import model
from harness.settings import Range

Dropout = Annotated[float, Range(0.0, 0.9)]


@model(gives=("estimate",))
class GruMask(nn.Module):
    """Magnitude mask from a one-layer GRU over log-magnitude frames, on the noisy phase; causal but for the STFT.

    0.26 M parameters. The mask lies in [0, 1]: `mask_max` is also where the oracle masks are cut. dropout: share of the
    GRU's outputs that a training step does without.
    """

    mask_max = 1.0
    views = 1  # features of every bin

    def __init__(self, hidden: int = 168, *, dropout: Dropout = 0.0) -> None:
        super().__init__()
        bins = signal.N_FFT // 2 + 1
        self.gru = nn.GRU(self.views * bins, hidden, batch_first=True)
        self.dropout = nn.Dropout(dropout)
        self.mask = nn.Linear(hidden, bins)

    def forward(self, noisy: torch.Tensor) -> dict[str, torch.Tensor]:
        """noisy: (batch, samples). Returns estimate, (batch, samples)."""
        spectrum, hidden = self._hidden(noisy)
        return {"estimate": self._masked(self.mask, spectrum, hidden, noisy.shape[-1])}

    def _hidden(self, noisy: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Spectrum, (batch, bins, frames), and what the GRU makes of it, (batch, frames, hidden)."""
        spectrum = signal.stft(signal.pad_to_hop(noisy))
        return spectrum, self.dropout(self.gru(self._features(spectrum).transpose(1, 2))[0])

    def _features(self, spectrum: torch.Tensor) -> torch.Tensor:
        # Log magnitudes of speech at -35..-20 dBFS lie around -1.5 with a spread of 2.5 after the shift and scale.
        return 0.4 * (signal.magnitude(spectrum) + 1e-3).log() + 1.5

    def _masked(self, head: nn.Module, spectrum: torch.Tensor, hidden: torch.Tensor, samples: int) -> torch.Tensor:
        mask = self.mask_max * torch.sigmoid(head(hidden)).transpose(1, 2)
        return signal.istft(spectrum * mask, samples)

    def shared_parameters(self) -> list[nn.Parameter]:
        return list(self.mask.parameters())


@model(gives=("estimate",))
class GruMaskStereo(GruMask):
    """`gru_mask` of two channels: it is told their phase difference too, and its mask lies on the first; 0.52 M parameters.

    The features are those of Wang, Le Roux & Hershey 2018 (Multi-channel deep clustering): log magnitudes of the first channel,
    cosine and sine of the phase difference, which tell where a sound comes from.
    """

    views = 3

    def forward(self, channels: torch.Tensor) -> dict[str, torch.Tensor]:
        """channels: (batch, 2, samples). Returns estimate, of the first channel, (batch, samples)."""
        spectrum = signal.stft(signal.pad_to_hop(channels))
        # Where it is silent a phase means nothing, and its slope would be steep.
        first, second = (spectrum[:, place] / (signal.magnitude(spectrum[:, place]) + 1e-3) for place in (0, 1))
        between = second * first.conj()
        features = torch.cat([self._features(spectrum[:, 0]), between.real, between.imag], 1)
        hidden = self.dropout(self.gru(features.transpose(1, 2))[0])
        return {"estimate": self._masked(self.mask, spectrum[:, 0], hidden, channels.shape[-1])}


@model(gives=("estimate", "estimates"))
class GruMaskPair(GruMask):
    """`gru_mask` with a second mask for the noise, from the same GRU; 0.30 M parameters.

    Made after the others, so that these start as they do in `gru_mask`.
    """

    def __init__(self, hidden: int = 168, *, dropout: Dropout = 0.0) -> None:
        super().__init__(hidden, dropout=dropout)
        self.noise_mask = nn.Linear(hidden, signal.N_FFT // 2 + 1)

    def forward(self, noisy: torch.Tensor) -> dict[str, torch.Tensor]:
        """noisy: (batch, samples). Returns estimate, (batch, samples), and estimates of speech and noise, (batch, 2, samples)."""
        spectrum, hidden = self._hidden(noisy)
        heads = (self.mask, self.noise_mask)
        estimates = torch.stack([self._masked(head, spectrum, hidden, noisy.shape[-1]) for head in heads], 1)
        return {"estimate": estimates[:, 0], "estimates": estimates}

    def shared_parameters(self) -> list[nn.Parameter]:
        return list(self.gru.parameters())


@model(gives=("estimate",))
class ConvTasnet(nn.Module):
    """Mask on a learned filterbank from dilated convolutions (Luo & Mesgarani 2019, arXiv 1809.07454); not causal.

    0.18 M parameters: 128 filters of 64 samples (4 ms, hop 2 ms), one stack of six layers with 64 and 128 channels. A
    waveform in, a waveform out, with a phase of its own. Its normalisation spans the clip, so that level does not matter.
    """

    sources = 1

    def __init__(self) -> None:
        from torchaudio.models import ConvTasNet  # costs a second, and other models do without

        super().__init__()
        self.net = ConvTasNet(
            num_sources=self.sources,
            enc_kernel_size=64,
            enc_num_feats=128,
            msk_kernel_size=3,
            msk_num_feats=64,
            msk_num_hidden_feats=128,
            msk_num_layers=6,
            msk_num_stacks=1,
        )

    def forward(self, noisy: torch.Tensor) -> dict[str, torch.Tensor]:
        """noisy: (batch, samples). Returns estimate, (batch, samples)."""
        return {"estimate": self.net(noisy[:, None])[:, 0]}

    def shared_parameters(self) -> list[nn.Parameter]:
        return list(self.net.decoder.parameters())


@model(gives=("estimate", "estimates"))
class ConvTasnetPair(ConvTasnet):
    """`conv_tasnet` with masks for speech and noise, through one decoder; 0.19 M parameters."""

    sources = 2

    def forward(self, noisy: torch.Tensor) -> dict[str, torch.Tensor]:
        """noisy: (batch, samples). Returns estimate, (batch, samples), and estimates of speech and noise, (batch, 2, samples)."""
        estimates = self.net(noisy[:, None])
        return {"estimate": estimates[:, 0], "estimates": estimates}
