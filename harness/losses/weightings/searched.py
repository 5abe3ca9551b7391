"""Weights that a search sets."""

from __future__ import annotations

from harness.losses.combination import Combination
from harness.losses.weightings.fixed import Given, Weights
from harness.losses.weightings.registry import weighting


@weighting
class Searched(Given):
    """Fixed weights that a search sets, the first term's being 1; those of the expression where none has."""

    def __init__(self, combination: Combination, *, weights: Weights = None) -> None:
        super().__init__(combination, weights or tuple(term.weight for term in combination.terms))
