"""Weights learned so that terms pull at equal rates."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor, nn

from harness.losses.combination import Combination
from harness.losses.weightings.registry import LEAST, Weighting, usable, weighting
from harness.settings import Range

FLOOR = 1e-3  # of a weight: no term is turned off for good, or upside down


@weighting(
    minima=True,
    reference="Chen et al. 2018, GradNorm: gradient normalization for adaptive loss balancing, ICML, arXiv 1711.02257",
)
class Gradnorm(Weighting):
    """Weights, K in sum, learned so that a term's gradient at the last shared layer is the stronger the less it has fallen.

    G_k = w_k times the norm of the term's gradient there; r_k = L_k over its initial value, over the mean of these; the sum
    of |G_k - mean(G) r_k^alpha| is minimised over w, its right side held constant. L_k is the term above its minimum. lr: the
    learning rate of w, by the same schedule as the model's. One backward pass a term, down to the shared layer, an update.
    """

    initial: Tensor

    def __init__(
        self,
        combination: Combination,
        *,
        alpha: Annotated[float, Range(0.0, 5.0)] = 1.5,
        lr: Annotated[float, Range(1e-4, 1.0, log=True)] = 0.025,
    ) -> None:
        super().__init__(combination)
        self.alpha, self.lr = alpha, lr
        self.register_buffer("initial", torch.ones(len(combination.terms)))
        self.weights = nn.Parameter(torch.ones(len(combination.terms)))

    def begin(self, terms: Tensor) -> None:
        self.initial.copy_(usable(self.above_minimum(terms)))

    def forward(self, terms: Tensor, shared_gradients: Tensor) -> Tensor:
        with torch.no_grad():
            self.weights.clamp_(min=FLOOR)
            self.weights.mul_(len(terms) / self.weights.sum())
            fallen = self.above_minimum(terms).clamp(min=0) / self.initial
            slowness = fallen / fallen.mean().clamp(min=LEAST)
            norms = self.written * shared_gradients
            wanted = (self.weights * norms).mean() * slowness**self.alpha
        imbalance = (self.weights * norms - wanted).abs().sum()
        # Of the model's gradient the weights are constants; of theirs, only the imbalance, which adds nothing to the value.
        return (self.weights.detach() * self.written * terms).sum() + (imbalance - imbalance.detach())

    def learning_rate(self, lr: float) -> float:
        return self.lr
