"""Models that tell what is said, how often, where and by whom: from the log-mel spectrum of a noisy clip.

One trunk with several heads. All normalise within an item, for what is judged comes one item at a time; in training a band
of frequencies and a short stretch of time are hidden (SpecAugment, Park et al. 2019, arXiv 1904.08779).
"""

from __future__ import annotations

import math

import torch
from torch import nn

from harness import signal
from harness.data.audio import BOUNDARY_SECONDS, SAMPLE_RATE
from harness.models.registry import model

HOP = 160  # 10 ms, of frames of 32 ms
MELS = 40
CHANNELS, EMBEDDING = 96, 64
LOWEST_HZ = 60.0
SLIDE = 3  # bands
FLOOR = 1e-7  # power of a mel band in a clip of digital silence: far below the noise of any recording
LEAST_SPREAD = 0.1  # spread of log-mel values below which a clip is not stretched: silence stays flat
BLANK = 0.9  # share of frames in which no symbol is expected, before training
FRAME_SECONDS = 4 * HOP / SAMPLE_RATE  # from one frame of the trunk to the next


class LogMel(nn.Module):
    """Log-mel spectrum less its mean over time, divided by its spread: (batch, samples) to (batch, 1, mels, frames)."""

    def __init__(self) -> None:
        from torchaudio import functional, transforms  # costs a second, and other models do without

        super().__init__()
        bank = functional.melscale_fbanks(signal.N_FFT // 2 + 1, LOWEST_HZ, SAMPLE_RATE / 2, MELS, SAMPLE_RATE)
        self.register_buffer("bank", bank.T.contiguous())
        self.hide = nn.Sequential(
            transforms.FrequencyMasking(8, iid_masks=True), transforms.TimeMasking(10, iid_masks=True, p=0.5)
        )
        self.bank: torch.Tensor

    def forward(self, noisy: torch.Tensor) -> torch.Tensor:
        with torch.autocast(noisy.device.type, enabled=False):
            power = signal.power(signal.stft(noisy, hop=HOP))
            features = (self.bank @ power + FLOOR).log()
            features = features - features.mean(-1, keepdim=True)
            spread = (features.square().mean((-2, -1), keepdim=True) + LEAST_SPREAD**2).sqrt()
            features = (features / spread)[:, None]
        return self.hide(slid(features)) if self.training else features


def slid(features: torch.Tensor) -> torch.Tensor:
    """Each item's bands moved by up to SLIDE, (batch, 1, mels, frames): talkers of other sizes (Jaitly & Hinton 2013)."""
    shift = torch.randint(-SLIDE, SLIDE + 1, (len(features), 1), device=features.device)
    bands = (torch.arange(MELS, device=features.device) + shift).clamp(0, MELS - 1)
    return features.gather(2, bands[:, None, :, None].expand_as(features))


class Separable(nn.Module):
    """Depthwise and pointwise convolution, each normalised (Howard et al. 2017), added to its input where shapes allow.

    The bands are padded as the frames are, unless the kernel spans them all (`kernel[0]` even): then one is left.
    """

    def __init__(
        self, inputs: int, outputs: int, stride: tuple[int, int] = (1, 1), kernel: tuple[int, int] = (3, 3)
    ) -> None:
        super().__init__()
        padding = (kernel[0] // 2 if kernel[0] % 2 else 0, kernel[1] // 2)
        self.depthwise = nn.Conv2d(inputs, inputs, kernel, stride, padding, groups=inputs, bias=False)
        self.pointwise = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.norms = nn.ModuleList([nn.GroupNorm(1, inputs), nn.GroupNorm(1, outputs)])
        self.added = inputs == outputs and stride == (1, 1) and kernel[0] % 2 == 1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = nn.functional.relu(self.norms[0](self.depthwise(x)))
        y = self.norms[1](self.pointwise(y))
        return nn.functional.relu(x + y if self.added else y)


class Trunk(nn.Module):
    """Noisy clip to frames of 40 ms: (batch, samples) to (batch, CHANNELS, frames)."""

    def __init__(self) -> None:
        super().__init__()
        half = CHANNELS // 2
        self.features = LogMel()
        self.first = nn.Sequential(nn.Conv2d(1, half, 5, 2, padding=2, bias=False), nn.GroupNorm(1, half), nn.ReLU())
        self.blocks = nn.Sequential(
            Separable(half, half, (2, 2)),
            Separable(half, half),
            # Where a formant lies tells words apart, so that bands are weighed and not averaged.
            Separable(half, CHANNELS, kernel=(MELS // 4, 3)),
            Separable(CHANNELS, CHANNELS, kernel=(1, 5)),
        )
        self.last = Separable(CHANNELS, CHANNELS, kernel=(1, 5))

    def forward(self, noisy: torch.Tensor) -> torch.Tensor:
        return self.last(self.blocks(self.first(self.features(noisy)))).squeeze(2)


class Pooled(nn.Module):
    """A trunk and an embedding of the whole clip, which every output depends on.

    What losses get of it has norm 1, as what is judged by centroids has: without, its length is some ten times the usual
    margin of 1, and losses on distances spend a training on drawing everything together (Schroff et al. 2015).
    """

    def __init__(self) -> None:
        super().__init__()
        self.trunk = Trunk()
        self.embed = nn.Linear(2 * CHANNELS, EMBEDDING)

    def embedding(self, frames: torch.Tensor) -> torch.Tensor:
        """Of mean and maximum over the frames: (batch, CHANNELS, frames) to (batch, EMBEDDING)."""
        return self.embed(torch.cat([frames.mean(-1), frames.amax(-1)], -1))

    def shared_parameters(self) -> list[nn.Parameter]:
        return list(self.embed.parameters())


def unit(embedding: torch.Tensor) -> torch.Tensor:
    return nn.functional.normalize(
        embedding, dim=-1, eps=1e-6
    )  # a smaller floor gives silence a slope beyond all bounds


def classifier(classes: int) -> nn.Linear:
    """Embedding to logits, which begin as if one class in so many was there (Lin et al. 2017, arXiv 1708.02002).

    From even odds, a loss on each class by itself first teaches that most are absent, at the cost of what tells them apart.
    A softmax sees no difference.
    """
    linear = nn.Linear(EMBEDDING, classes)
    with torch.no_grad():
        linear.bias.sub_(math.log(classes))
    return linear


@model(gives=("logits", "embedding"))
class DsCnn(Pooled):
    """Depthwise-separable CNN on log-mel features, for one class or several (after Zhang et al. 2017, arXiv 1711.07128)."""

    def __init__(self, *, classes: int) -> None:
        super().__init__()
        self.classify = classifier(classes)

    def forward(self, noisy: torch.Tensor) -> dict[str, torch.Tensor]:
        """noisy: (batch, samples). Returns logits, (batch, classes), and embedding of norm 1, (batch, EMBEDDING)."""
        embedding = self.embedding(self.trunk(noisy))
        return {"logits": self.classify(embedding), "embedding": unit(embedding)}


@model(gives=("rate", "embedding"))
class DsCnnCount(Pooled):
    """`ds_cnn` that says how often something happens in a clip."""

    def __init__(self) -> None:
        super().__init__()
        self.count = nn.Linear(EMBEDDING, 1)

    def forward(self, noisy: torch.Tensor) -> dict[str, torch.Tensor]:
        """noisy: (batch, samples). Returns rate, (batch,), the logarithm of the expected count, and embedding of norm 1."""
        embedding = self.embedding(self.trunk(noisy))
        return {"rate": self.count(embedding)[:, 0], "embedding": unit(embedding)}


@model(gives=("boundary", "log_variance", "logits", "embedding"))
class DsCnnLocate(Pooled):
    """`ds_cnn` that says what is said, when it begins and ends, and how sure it is of either."""

    def __init__(self, *, classes: int) -> None:
        super().__init__()
        self.classify = classifier(classes)
        self.place = nn.Conv1d(CHANNELS, 2, 5, padding=2)
        self.spread = nn.Linear(EMBEDDING, 2)
        # So that a loss which learns the variance begins as if it were 1 (He et al. 2019, arXiv 1809.08545).
        nn.init.normal_(self.spread.weight, std=1e-4)
        nn.init.zeros_(self.spread.bias)

    def forward(self, noisy: torch.Tensor) -> dict[str, torch.Tensor]:
        """noisy: (batch, samples). Returns boundary, (batch, 2), onset and offset in units of 50 ms; log_variance of each,
        (batch, 2); logits, (batch, classes); and embedding of norm 1, (batch, EMBEDDING)."""
        frames = self.trunk(noisy)
        embedding = self.embedding(frames)
        # Where the frames agree that an end is: pooled features would not say.
        centres = torch.arange(frames.shape[-1], device=noisy.device, dtype=noisy.dtype) * FRAME_SECONDS
        boundary = (self.place(frames).softmax(-1) * (centres / BOUNDARY_SECONDS)).sum(-1)
        return {
            "boundary": boundary,
            "log_variance": self.spread(embedding),
            "logits": self.classify(embedding),
            "embedding": unit(embedding),
        }

    def shared_parameters(self) -> list[nn.Parameter]:
        return list(self.trunk.last.pointwise.parameters())


@model(gives=("log_probs", "frame_lengths"))
class Crnn(nn.Module):
    """The trunk of `ds_cnn`, then a GRU in both directions: a distribution over symbols, or the blank 0, every 80 ms."""

    def __init__(self, *, symbols: int) -> None:
        super().__init__()
        self.trunk = Trunk()
        self.gru = nn.GRU(CHANNELS, EMBEDDING, batch_first=True, bidirectional=True)
        self.classify = nn.Linear(2 * EMBEDDING, symbols)
        # From even odds, CTC first teaches every layer that most frames are blank, at the cost of what tells symbols apart:
        # the model then stays silent for hundreds of updates.
        with torch.no_grad():
            self.classify.bias[0] = math.log((symbols - 1) * BLANK / (1 - BLANK))

    def forward(self, noisy: torch.Tensor) -> dict[str, torch.Tensor]:
        """noisy: (batch, samples). Returns log_probs, (batch, frames, symbols), and frame_lengths, (batch,): all frames."""
        # A word is several frames long: half as many leave CTC fewer alignments to choose among.
        frames = nn.functional.max_pool1d(self.trunk(noisy), 2, ceil_mode=True)
        hidden, _ = self.gru(frames.transpose(1, 2))
        log_probs = self.classify(hidden).log_softmax(-1)
        return {
            "log_probs": log_probs,
            "frame_lengths": torch.full((len(noisy),), hidden.shape[1], device=noisy.device),
        }

    def shared_parameters(self) -> list[nn.Parameter]:
        return list(self.classify.parameters())
