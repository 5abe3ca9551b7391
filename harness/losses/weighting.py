"""Weightings: how the terms of a combination become the one number that is minimised.

A weighting is an nn.Module built from the combination, whose forward takes the terms, (K,) raw batch means with their
graph, and returns the scalar total. Its parameters, if any, are learned beside the model's.
"""

from __future__ import annotations

from torch import Tensor, nn

from harness.errors import unknown
from harness.losses.combination import Combination


class Fixed(nn.Module):
    """sum of w_k L_k with the weights of the expression; a plain `a + b` is 1 each, not normalised."""

    def __init__(self, combination: Combination) -> None:
        super().__init__()
        self.weights = tuple(term.weight for term in combination.terms)

    def forward(self, terms: Tensor) -> Tensor:
        """terms: (K,). Returns a scalar."""
        weighted = [weight * term for weight, term in zip(self.weights, terms.unbind(), strict=True)]
        return sum(weighted[1:], weighted[0])


WEIGHTINGS: dict[str, type[nn.Module]] = {"fixed": Fixed}


def get_weighting(name: str) -> type[nn.Module]:
    """The weighting of that name, to be called with a combination; UserError with the nearest name if there is none."""
    if name not in WEIGHTINGS:
        raise unknown("weighting", name, WEIGHTINGS, "harness losses")
    return WEIGHTINGS[name]
