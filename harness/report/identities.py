"""Losses that must tie, because one is another by a different name: what still parts them is the noise of the harness itself.

A study names them (`identities`). Where they do not tie, something that should be equal for all losses is not. A difference that
rounding hides is none, however sure: two trainings that part in the last bits of a float can differ by as little at every seed.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from harness.intervals import ALPHA
from harness.report.numbers import digits

IDENTITIES = ["protocol", "test_set", "metric", "losses", "a", "b", "diff", "low", "high", "ties"]
Group = tuple[str, ...]


def tolerance(metric: str) -> float:
    """Half of the last place that scores of the metric are printed with: 0.005 dB of SI-SDR, 0.005 of PESQ, 0.0005 of ESTOI."""
    return 0.5 * 10 ** -digits(metric)


def apart(metric: str, p_adjusted: float, low: float, high: float) -> bool:
    """Whether a pair that must tie differs for certain by more than the tolerance. low, high: of the adjusted interval."""
    return p_adjusted < ALPHA and (low > tolerance(metric) or high < -tolerance(metric))


def share(values: np.ndarray, order: list[str], beats: np.ndarray, groups: list[Group], how: Callable) -> np.ndarray:
    """`values` (losses,) with one value, `how` of theirs, for the losses of a group that tie with one another.

    order: the losses; beats: (losses, losses), True where row is better than column for certain.
    """
    shared = values.copy()
    for group in groups:
        places = [place for place, name in enumerate(order) if name in group]
        if len(places) > 1 and not beats[np.ix_(places, places)].any():
            shared[places] = how(values[places])
    return shared


def rows(pairs: list[dict], groups: dict[str, list[Group]]) -> list[dict]:
    """For each protocol, test set, metric and group the largest difference in it. pairs: as in `Analysis`.

    ties: "yes", "no" where any pair is `apart`, "unknown" where there is no interval.
    """
    found: dict[tuple, list[dict]] = {}
    for pair in pairs:
        for group in groups.get(pair["protocol"], []):
            if pair["a"] in group and pair["b"] in group:
                found.setdefault((pair["protocol"], pair["test_set"], pair["metric"], group), []).append(pair)
    result = []
    for (protocol, test_set, metric, group), own in found.items():
        largest = max(own, key=lambda pair: abs(pair["diff"]))
        unknown = any(np.isnan(pair["p_adjusted"]) for pair in own)
        parted = any(apart(metric, *(pair[key] for key in ("p_adjusted", "low", "high"))) for pair in own)
        ties = "no" if parted else "unknown" if unknown else "yes"
        present = {name for pair in own for name in (pair["a"], pair["b"])}
        result.append(
            {"protocol": protocol, "test_set": test_set, "metric": metric, "ties": ties}
            | {"losses": " = ".join(name for name in group if name in present)}
            | {key: largest[key] for key in ("a", "b", "diff", "low", "high")}
        )
    return result
