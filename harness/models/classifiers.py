"""Models that tell what is said, how often, where and by whom: from the log-mel spectrum of a noisy clip.

One trunk with several heads. All normalise within an item, for what is judged comes one item at a time; in training a band
of frequencies and a short stretch of time are hidden (SpecAugment, Park et al. 2019, arXiv 1904.08779).
"""

from __future__ import annotations

import torch
from torch import nn

from harness.data.audio import SAMPLE_RATE
from harness.models.registry import model

WINDOW, HOP = 400, 160  # 25 ms, 10 ms
MELS = 40
FLOOR = 1e-7  # power of a mel band in a clip of digital silence: far below the noise of any recording
SLOPE_FLOOR = 0.1  # spread of log-mel values below which a clip is not stretched: silence stays flat
BOUNDARY_SECONDS = 0.05  # the unit of `boundary`
STRIDE = 4  # frames of the spectrum to one of the trunk


class LogMel(nn.Module):
    """Log-mel spectrum less its mean over time, divided by its spread: (batch, samples) to (batch, 1, mels, frames)."""

    def __init__(self) -> None:
        from torchaudio import transforms  # costs a second, and other models do without

        super().__init__()
        self.mel = transforms.MelSpectrogram(
            SAMPLE_RATE, n_fft=512, win_length=WINDOW, hop_length=HOP, n_mels=MELS, pad_mode="constant"
        )
        self.hide = nn.Sequential(
            transforms.FrequencyMasking(8, iid_masks=True), transforms.TimeMasking(10, iid_masks=True, p=0.5)
        )

    def forward(self, noisy: torch.Tensor) -> torch.Tensor:
        with torch.autocast(noisy.device.type, enabled=False):
            features = (self.mel(noisy) + FLOOR).log()
            features = features - features.mean(-1, keepdim=True)
            spread = (features.square().mean((-2, -1), keepdim=True) + SLOPE_FLOOR**2).sqrt()
            features = (features / spread)[:, None]
        return self.hide(features) if self.training else features


class Separable(nn.Module):
    """Depthwise and pointwise convolution, each normalised (Howard et al. 2017), added to its input where shapes allow."""

    def __init__(self, inputs: int, outputs: int, stride: tuple[int, int] = (1, 1)) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(inputs, inputs, 3, stride, padding=1, groups=inputs, bias=False)
        self.pointwise = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.norms = nn.ModuleList([nn.GroupNorm(1, inputs), nn.GroupNorm(1, outputs)])
        self.added = inputs == outputs and stride == (1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = nn.functional.relu(self.norms[0](self.depthwise(x)))
        y = self.norms[1](self.pointwise(y))
        return nn.functional.relu(x + y if self.added else y)


class Trunk(nn.Sequential):
    """Noisy clip to frames of 40 ms: (batch, samples) to (batch, channels, bands, frames)."""

    def __init__(self, channels: int = 64) -> None:
        super().__init__(
            LogMel(),
            nn.Conv2d(1, channels // 2, (5, 5), (2, 2), padding=2, bias=False),
            nn.GroupNorm(1, channels // 2),
            nn.ReLU(),
            Separable(channels // 2, channels, (2, 2)),
            Separable(channels, channels),
            Separable(channels, channels, (2, 1)),
            Separable(channels, channels),
        )


@model(gives=("logits", "embedding"))
class DsCnn(nn.Module):
    """Depthwise-separable CNN on log-mel features with a pooled embedding (after Zhang et al. 2017, arXiv 1711.07128)."""

    def __init__(self, *, classes: int) -> None:
        super().__init__()
        self.trunk = Trunk()
        self.embed = nn.Linear(2 * 64, 64)
        self.classify = nn.Linear(64, classes)

    def forward(self, noisy: torch.Tensor) -> dict[str, torch.Tensor]:
        """noisy: (batch, samples). Returns logits, (batch, classes), and embedding, (batch, 64)."""
        embedding = self.embed(pooled(self.trunk(noisy)))
        return {"logits": self.classify(embedding), "embedding": embedding}

    def shared_parameters(self) -> list[nn.Parameter]:
        return list(self.embed.parameters())


def pooled(frames: torch.Tensor) -> torch.Tensor:
    """Mean and maximum over bands and frames: (batch, channels, bands, frames) to (batch, 2 channels)."""
    return torch.cat([frames.mean((-2, -1)), frames.amax((-2, -1))], -1)
