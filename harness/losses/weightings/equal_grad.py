"""The control of equal pulls: terms divided by the strength of their gradients before training."""

from __future__ import annotations

from torch import Tensor

from harness.losses.weightings.equal import PerInitial
from harness.losses.weightings.registry import weighting


@weighting(scale_free=True)
class EqualGrad(PerInitial):
    """Each term over the norm of its gradient at the model's outputs (the estimate) on the untrained net."""

    def begin(self, output_gradients: Tensor) -> None:
        self.divide(self.written * output_gradients)
