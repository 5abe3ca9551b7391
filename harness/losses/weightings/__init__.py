"""Weightings, one file each: how the terms of a combination become the one number that is minimised.

To add one, decorate a class derived from `Weighting` with `@weighting`: `registry` says what its signatures mean.
"""

from harness.losses.weightings.registry import (
    Chosen,
    Weighting,
    WeightingInfo,
    all_weightings,
    get_weighting,
    weighting,
)

# Importing a file registers its weightings, in the order of the tables.
from harness.losses.weightings import fixed, searched, equal, equal_grad, uncertainty, dwa, gradnorm, frozen  # isort: skip

FILES = (fixed, searched, equal, equal_grad, uncertainty, dwa, gradnorm, frozen)

__all__ = [
    "FILES",
    "Chosen",
    "Weighting",
    "WeightingInfo",
    "all_weightings",
    "get_weighting",
    "weighting",
]
