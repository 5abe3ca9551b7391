"""Weights that another training has found."""

from __future__ import annotations

from harness.errors import UserError
from harness.losses.combination import Combination
from harness.losses.weightings.fixed import Given, Weights
from harness.losses.weightings.registry import weighting


@weighting
class Frozen(Given):
    """The weights that another weighting ended on, from the first update: `frozen(weights=(1, 0.31))`, one a term.

    They stand in place of those of the expression. A control: whether the path of the weights mattered or only their end.
    """

    def __init__(self, combination: Combination, *, weights: Weights = None) -> None:
        if weights is None:
            raise UserError("weighting frozen needs the weights, one for each term, as in frozen(weights=(1, 0.31))")
        super().__init__(combination, weights)
