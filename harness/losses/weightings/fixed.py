"""Weights that stay: those that are written in front of the terms, or given in their place."""

from __future__ import annotations

from typing import Annotated

from torch import Tensor

from harness.errors import UserError
from harness.losses.combination import Combination
from harness.losses.weightings.registry import Weighting, weighting
from harness.settings import Each, Range

Weights = Annotated[tuple[float, ...] | None, Each("term", Range(0.0, 1e30))]


class Given(Weighting):
    """sum of w_k L_k with given w, one for each term."""

    def __init__(self, combination: Combination, weights: tuple[float, ...]) -> None:
        super().__init__(combination)
        if len(weights) != len(combination.terms):
            raise UserError(
                f"{len(weights)} weights for the {len(combination.terms)} terms of {combination.expression!r}"
            )
        if not any(weights):
            raise UserError(f"all weights of {combination.expression!r} are 0: nothing would be trained")
        self.weights = weights

    def forward(self, terms: Tensor) -> Tensor:
        weighted = [weight * term for weight, term in zip(self.weights, terms.unbind(), strict=True)]
        return sum(weighted[1:], weighted[0])


@weighting
class Fixed(Given):
    """sum of w_k L_k with the weights of the expression; a plain `a + b` is 1 each, not normalised."""

    def __init__(self, combination: Combination) -> None:
        super().__init__(combination, tuple(term.weight for term in combination.terms))
