"""Weights by how slowly each term falls."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from harness.losses.combination import Combination
from harness.losses.weightings.registry import LEAST, Weighting, weighting
from harness.settings import Range

# The paper's epoch is a pass over the data, of which scenes have none. Looks at validation would do, but for tuning, whose
# two would be over before the first weight is set.
EPOCHS = 20  # a training
STEEPEST = 1e3  # ratio of two means


@weighting(
    minima=True,
    reference="Liu, Johns & Davison 2019, End-to-end multi-task learning with attention (dynamic weight average), CVPR",
)
class Dwa(Weighting):
    """w_k = K softmax(r_k / temperature), r_k the mean of a term in the last epoch over that in the one before; 1 at first.

    Means are of what is above the minimum; an epoch is a twentieth of the updates, and the first two have weights of 1.
    """

    weights: Tensor
    running: Tensor
    previous: Tensor

    def __init__(
        self, combination: Combination, *, temperature: Annotated[float, Range(0.1, 100.0, log=True)] = 2.0
    ) -> None:
        super().__init__(combination)
        self.temperature = temperature
        self.epoch, self.step = 1, 0  # updates of an epoch; those done
        for name, value in (("weights", 1.0), ("running", 0.0), ("previous", 0.0)):
            self.register_buffer(name, torch.full((len(combination.terms),), value))

    def begin(self, updates: int) -> None:
        self.epoch = max(1, updates // EPOCHS)

    def forward(self, terms: Tensor) -> Tensor:
        total = (self.weights * self.written * terms).sum()
        if self.training:
            self._observe(self.above_minimum(terms.detach()))
        return total

    @torch.no_grad()
    def _observe(self, values: Tensor) -> None:
        # Into new tensors: the weights of this update are still in its graph.
        self.running = self.running + values / self.epoch
        self.step += 1
        if self.step % self.epoch == 0:
            if self.step >= 2 * self.epoch:
                ratio = self.running.clamp(min=LEAST) / self.previous.clamp(min=LEAST)
                self.weights = len(ratio) * (ratio.clamp(max=STEEPEST) / self.temperature).softmax(0)
            self.previous, self.running = self.running, torch.zeros_like(self.running)

    def get_extra_state(self) -> list[int]:
        return [self.epoch, self.step]

    def set_extra_state(self, state: list[int]) -> None:
        self.epoch, self.step = state
