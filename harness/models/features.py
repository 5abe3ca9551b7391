"""Networks whose layers a waveform is compared in: the one of Germain, Chen & Koltun 2018 (arXiv 1806.10522), and a user's own.

A feature network is an nn.Module that takes (batch, samples), with optional lengths, (batch,) samples, and yields its layers one
by one, each as features, (batch, channels, frames), with its valid frames, (batch,), or None where lengths are.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import skip_init
from torch.nn.utils.fusion import fuse_conv_bn_eval

from harness import paths
from harness.data import corpora
from harness.errors import UserError
from harness.signal import mask_samples

CHANNELS = (32,) * 5 + (64,) * 5 + (128,) * 4
STRIDES = (2,) * 13 + (1,)
SLOPE = 0.2  # of the leaky rectifier below 0
RANDOM_SEED = 0
FEATURE_VERSION = 1  # raise it, and the version of `deep_feature`, when a recipe comes to be other weights

Layers = Iterator[tuple[Tensor, Tensor | None]]


class Phi(nn.Module):
    """The network while it learns to classify: 14 convolutions of kernel 3 and stride 2 (the last 1), batch norm, leaky ReLU."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)  # a trial's own stays as it is
        inputs = (1, *CHANNELS[:-1])
        self.convolutions = nn.ModuleList(
            skip_init(nn.Conv1d, before, after, 3, stride, padding=1, bias=False)
            for before, after, stride in zip(inputs, CHANNELS, STRIDES, strict=True)
        )
        self.norms = nn.ModuleList(nn.BatchNorm1d(channels) for channels in CHANNELS)
        for weight in self.convolutions.parameters():
            nn.init.kaiming_normal_(weight, SLOPE, generator=generator)

    def forward(self, signal: Tensor) -> Tensor:
        """signal: (batch, samples). Returns the mean of the last layer over time, (batch, 128)."""
        x = signal[:, None]
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = functional.leaky_relu(norm(convolution(x)), SLOPE, inplace=True)
        return x.mean(-1)


class FrozenPhi(nn.Module):
    """The network when it has learned: each batch norm joined to its convolution, so that no statistics are left to move.

    What lies behind an item's end is zero in every layer, as it is beside an item that has no padding: the valid frames of
    a layer, half of those of the layer before, rounded up, are the same in both.
    """

    def __init__(self, phi: Phi) -> None:
        super().__init__()
        phi.eval()
        layers = zip(phi.convolutions, phi.norms, strict=True)
        self.convolutions = nn.ModuleList(fuse_conv_bn_eval(*layer) for layer in layers)  # type: ignore[type-var, arg-type]

    def forward(self, signal: Tensor, lengths: Tensor | None = None) -> Layers:
        x = mask_samples(signal, lengths)[:, None]
        for convolution, stride in zip(self.convolutions, STRIDES, strict=True):
            weight, bias = (parameter.to(x.dtype) for parameter in convolution.parameters())
            x = functional.leaky_relu(functional.conv1d(x, weight, bias, stride, padding=1), SLOPE, inplace=True)
            lengths = None if lengths is None else (lengths + stride - 1) // stride
            x = mask_samples(x, lengths)
            yield x, lengths


@dataclass(frozen=True)
class Recipe:
    """What the network of `deep_feature` learns, and how: keywords and voices in turn, a head each, by cross-entropy.

    noise, snr (dB), seconds: of what is heard; batch: clips of an update; lr: peak of a one-cycle schedule of AdamW.
    """

    version: int = FEATURE_VERSION
    words: str = "spoken_words"
    speech: str = "prompts"
    noise: tuple[str, ...] = ("ssn", "babble", "music")
    snr: tuple[float, float] = (0.0, 20.0)
    seconds: float = 1.0
    updates: int = 600
    batch: int = 32
    lr: float = 3e-3
    weight_decay: float = 0.01
    seed: int = 0

    def key(self) -> str:
        """Hash of the recipe and of the cards of all that is heard."""
        cards = {name: corpora.card(name).digest() for name in (self.words, self.speech, *self.noise)}
        said = json.dumps([asdict(self), cards], sort_keys=True)
        return hashlib.sha256(said.encode()).hexdigest()[:16]

    @property
    def checkpoint(self) -> Path:
        """Where the trained network lies, or will lie."""
        return paths.runs() / "features" / f"{self.key()}.pt"


def save(file: Path, phi: Phi, accuracy: Mapping[str, float], recipe: Recipe) -> None:
    """Write a trained network with its validation accuracies, into a file that is whole or not there."""
    weights = {name: tensor.cpu() for name, tensor in phi.state_dict().items()}
    draft = file.with_suffix(".draft")
    content = {"weights": weights, "sha256": _sha256(weights), "accuracy": dict(accuracy), "recipe": asdict(recipe)}
    torch.save(content, draft)
    draft.replace(file)


def load(file: Path) -> dict[str, Any]:
    """What `save` wrote. UserError where there is no such file, or it has not what was written."""
    mend = "make it, once, in a few minutes, with: harness features"
    if not file.is_file():
        raise UserError(f"deep_feature: no trained network at {file}; {mend}")
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
        whole = content["sha256"] == _sha256(content["weights"])
    except Exception:  # of a damaged file torch, zip and pickle each say something else
        whole = False
    if not whole:
        raise UserError(f"deep_feature: the trained network at {file} is damaged; delete the file and {mend}")
    return content


def _sha256(weights: Mapping[str, Tensor]) -> str:
    hashed = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        hashed.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        hashed.update(tensor.contiguous().numpy().tobytes())
    return hashed.hexdigest()


@dataclass(frozen=True)
class Network:
    """make: builds it; key: what tells its weights from others of the same name, for the identity of a run."""

    make: Callable[[], nn.Module]
    key: Callable[[], str]


NETWORKS: dict[str, Network] = {}


def feature_network(*, version: int = 1) -> Callable[[Callable[[], nn.Module]], Callable[[], nn.Module]]:
    """Register a function that builds a feature network: `def mine()` is what `deep_feature(network='mine')` asks for.

    version: raise it when its weights change, so that runs of the old ones are not taken for runs of the new.
    """

    def register(make: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
        name = make.__name__
        known = NETWORKS.get(name)
        if known and known.make.__module__ != make.__module__:
            raise UserError(
                f"two feature networks are called {name!r}: one in {known.make.__module__}, one in {make.__module__}; rename one"
            )
        NETWORKS[name] = Network(make, lambda: f"version {version}")
        return make

    return register


def trained() -> nn.Module:
    """The network that `harness features` has trained."""
    phi = Phi(RANDOM_SEED)
    phi.load_state_dict(load(Recipe().checkpoint)["weights"])
    return FrozenPhi(phi)


@feature_network()
def random() -> nn.Module:
    """The same network as it is before it has learned anything, always with the same weights."""
    return FrozenPhi(Phi(RANDOM_SEED))


NETWORKS["trained"] = Network(trained, lambda: Recipe().key())
