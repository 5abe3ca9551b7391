"""Paired differences between losses, and which of them are real."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from harness.intervals import ALPHA, Estimate, holm, interval, p_value, two_way


class Difference(NamedTuple):
    """a - b, paired, with its 95 % interval, adjusted for those that were compared with it (Holm). sure: whether it is not 0."""

    a: str
    b: str
    mean: float
    low: float
    high: float
    sure: bool
    seeds: int


def differed(
    pairs: Sequence[tuple[str, str]], differences: Sequence[np.ndarray], clusters: np.ndarray
) -> list[Difference]:
    """One Difference a pair, corrected for all of them. differences: of each pair (seeds, items); clusters: (items,) names."""
    estimates = [two_way(values, clusters) for values in differences]
    joined = Estimate(*(np.array([getattr(one, name) for one in estimates], dtype=float) for name in Estimate._fields))
    adjusted, levels = holm(p_value(joined))
    low, high = interval(joined, np.where(np.isnan(levels), ALPHA, levels))
    return [
        Difference(
            a, b, float(joined.mean[k]), float(low[k]), float(high[k]), bool(adjusted[k] < ALPHA), len(differences[k])
        )
        for k, (a, b) in enumerate(pairs)
    ]
