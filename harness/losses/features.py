"""Losses in the layers of a network that has learned to listen, and learns no more."""

from __future__ import annotations

from itertools import islice
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional

from harness.errors import UserError
from harness.losses.registry import Range, loss
from harness.models.features import NETWORKS
from harness.settings import OneOf

MEASURED_BATCHES = 8  # by which a layer is weighed: one alone may be all but silent
LEAST = 1e-8  # mean distance of a layer in a batch that weighs it: where nothing differs, there is nothing to weigh


@loss(
    minimum=0.0,
    unit="layer distances",
    reference="Germain, Chen & Koltun 2018, Speech denoising with deep feature losses, arXiv 1806.10522",
)
class DeepFeature(nn.Module):
    """Sum over layers of the mean absolute difference between a frozen network's features of estimate and clean.

    forward: estimate, clean: (batch, samples); lengths: (batch,) samples; returns (batch,), each a sum over layers m = 1..layers
    of (1/w_m) mean over channels and valid frames of abs(Phi_m(clean) - Phi_m(estimate)). What lies behind an item's end is zero
    in every layer, so that an item counts the same alone and padded.

    rebalance: w_m, 1 at first, is the mean difference of layer m over the first batches of training, so that each term is
    about 1 (the paper measures it once, after ten epochs). network: "trained", on this harness's own keywords and voices; its
    control "random", the same without any training; or one of a user's own, named by `harness.models.features.feature_network`.
    """

    scale: Tensor
    batches: Tensor

    def __init__(
        self,
        *,
        layers: Annotated[int, Range(1, 14)] = 6,
        rebalance: bool = True,
        network: Annotated[str, OneOf(NETWORKS)] = "trained",
    ) -> None:
        super().__init__()
        self.layers = layers
        self.rebalance = rebalance
        self.network = NETWORKS[network].make().requires_grad_(False).eval()
        self.register_buffer("scale", torch.ones(layers))
        self.register_buffer("batches", torch.zeros(layers))

    def train(self, mode: bool = True) -> DeepFeature:
        """As ever, but for the network: in training mode batch norms would move and dropout would drop."""
        super().train(mode)
        self.network.eval()
        return self

    def forward(self, estimate: Tensor, clean: Tensor, lengths: Tensor | None = None) -> Tensor:
        terms = self.terms(estimate, clean, lengths)
        if self.training and self.rebalance:
            self._weigh(terms.detach().mean(0).to(self.scale.dtype))
        return (terms / self.scale.to(terms.dtype)).sum(-1)

    def terms(self, estimate: Tensor, clean: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Mean absolute difference in each layer, before its weight: (batch, layers)."""
        with torch.no_grad():
            theirs = list(islice(self.network(clean, lengths), self.layers))
        ours = islice(self.network(estimate, lengths), self.layers)
        terms = [_distance(each, target, frames) for (each, frames), (target, _) in zip(ours, theirs, strict=True)]
        if len(terms) < self.layers:
            raise UserError(f"deep_feature.layers = {self.layers}: the network has {len(terms)}")
        return torch.stack(terms, -1)

    @torch.no_grad()
    def _weigh(self, measured: Tensor) -> None:
        """Let the first batches of training say how far apart a layer is: measured, (layers,)."""
        # Decided on the device, which is never waited for. New tensors, because a backward pass may still need the old.
        counts = (self.batches < MEASURED_BATCHES) & (measured > LEAST)
        self.batches = self.batches + counts
        mean = self.scale + (measured - self.scale) / self.batches.clamp(min=1)
        self.scale = torch.where(counts, mean, self.scale)


def _distance(ours: Tensor, theirs: Tensor, frames: Tensor | None) -> Tensor:
    """Mean absolute difference of (batch, channels, frames), both zero behind the valid frames, (batch,): (batch,)."""
    total = functional.l1_loss(ours, theirs, reduction="none").sum((1, 2))
    return total / (ours.shape[1] * (ours.shape[2] if frames is None else frames.clamp(min=1)))
