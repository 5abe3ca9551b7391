"""The honest zero point of every combination: terms divided by what they are worth before training."""

from __future__ import annotations

from torch import Tensor

from harness.losses.combination import Combination
from harness.losses.weightings.registry import Weighting, usable, weighting


class PerInitial(Weighting):
    """sum of L_k / v_k, v_k a value of the untrained net."""

    weights: Tensor

    def __init__(self, combination: Combination) -> None:
        super().__init__(combination)
        self.register_buffer("weights", self.written.clone())

    def forward(self, terms: Tensor) -> Tensor:
        return (self.weights * terms).sum()

    def divide(self, values: Tensor) -> None:
        """values: (K,) of the terms with the weights in front of them."""
        self.weights.copy_(self.written / usable(values))


@weighting(minima=True, scale_free=True)
class Equal(PerInitial):
    """Each term over its initial value: the mean above its minimum on the untrained net."""

    def begin(self, terms: Tensor) -> None:
        self.divide(self.above_minimum(terms))
