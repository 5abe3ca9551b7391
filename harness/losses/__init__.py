"""Training losses for speech models. `from harness.losses import si_sdr` works for every registered name and alias.

To add one, decorate a function or an nn.Module with `@loss`: `registry` says what its signature means. A weighting of several
is a class with `@weighting`: `weightings.registry` says the same of it.
"""

from __future__ import annotations

from typing import Any

from harness.errors import UserError
from harness.losses import (
    boundaries,
    classification,
    convolutive,
    counts,
    distortion,
    disturbance,
    embedding,
    features,
    intelligibility,
    margin,
    mel,
    multi_label,
    pairs,
    regularisers,
    sequence,
    spectral,
    waveform,
)
from harness.losses.combination import Combination, Term, parse
from harness.losses.objective import Objective
from harness.losses.registry import LossInfo, Range, all_losses, build, get, loss
from harness.losses.weightings import Weighting, WeightingInfo, all_weightings, get_weighting, weighting

# Importing a family registers its losses.
FAMILIES = (
    waveform,
    distortion,
    convolutive,
    spectral,
    mel,
    intelligibility,
    disturbance,
    features,
    classification,
    multi_label,
    margin,
    embedding,
    pairs,
    sequence,
    counts,
    boundaries,
    regularisers,
)

__all__ = [
    "Combination",
    "LossInfo",
    "Objective",
    "Range",
    "Term",
    "Weighting",
    "WeightingInfo",
    "all_losses",
    "all_weightings",
    "build",
    "get",
    "get_weighting",
    "loss",
    "parse",
    "weighting",
]


def __getattr__(name: str) -> Any:
    try:
        return get(name).function
    except UserError as error:
        raise AttributeError(str(error)) from None


def __dir__() -> list[str]:
    return sorted([*__all__, *all_losses()])
