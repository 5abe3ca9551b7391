"""How much of what the best fixed weights win over equal ones a weighting leaves behind, and how sure that is.

Regret = (best of the grid - weighting) / (best of the grid - equal): 0 is as good as the best of the grid, 1 no better than equal,
below 0 better than any that was tried. The best of the grid is picked on these very scores, so that regret is rather too large.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import stats
from scipy.optimize import brentq

from harness.intervals import ALPHA, interval, two_way
from harness.report.blocks import Block, each
from harness.report.quality import label, quality, told

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.report.view import View

LEAST_GRID = 3  # fixed balances, for a best one among them
UNDEFINED = "undefined: the grid does not beat equal"
COLUMNS = ["protocol", "group", "test_set", "metric", "best", "name", "value", "regret", "low", "high", "seeds"]


class Share(NamedTuple):
    """A ratio of means and the ends of its interval; all NaN where its denominator may be 0."""

    value: float
    low: float
    high: float


def share(part: ArrayLike, whole: ArrayLike, clusters: ArrayLike, alpha: float = ALPHA) -> Share:
    """mean(part) / mean(whole) with Fieller's interval (1954): every ratio r for which part - r * whole may have mean 0.

    part, whole: (seeds, items), paired, in one unit; clusters: (items,) names. The mean of part - r * whole is judged as any
    other mean here, by crossed effects of seed and cluster. NaN where the interval of `whole` does not lie above 0: then every
    ratio would do. With one seed or one cluster the ends are NaN.
    """
    part, whole, clusters = np.asarray(part, dtype=float), np.asarray(whole, dtype=float), np.asarray(clusters)
    below = two_way(whole, clusters)
    bottom = float(interval(below, alpha)[0])
    if bottom <= 0 or (np.isnan(bottom) and not below.mean > 0):
        return Share(np.nan, np.nan, np.nan)
    ratio = float(two_way(part, clusters).mean / below.mean)

    def outside(r: float) -> float:
        """Above 0 where r is refuted, in standard errors."""
        estimate = two_way(part - r * whole, clusters)
        return float(abs(estimate.mean) - stats.t.ppf(1 - alpha / 2, estimate.df) * estimate.se)

    if np.isnan(bottom):
        return Share(ratio, np.nan, np.nan)
    if outside(ratio) > -1e-12 * float(below.mean):  # no variance at all
        return Share(ratio, ratio, ratio)
    return Share(ratio, _end(outside, ratio, -1.0), _end(outside, ratio, 1.0))


def _end(outside: Callable[[float], float], ratio: float, side: float) -> float:
    """Where `outside` first rises above 0 on one side: it does, because it does so far away, where `whole` alone counts."""
    step = 0.01
    while outside(ratio + side * step) <= 0:
        step *= 2
    return float(brentq(outside, ratio + side * (step / 2 if step > 0.01 else 0.0), ratio + side * step, xtol=1e-5))


def table(view: View, balanced: pd.DataFrame) -> pd.DataFrame:
    """One row a weighting that was learned or searched, test set and headline metric, and one of them all together, the selection
    score (`quality`), first: COLUMNS. value: its mean; regret, low and high are NaN where the grid does not beat equal.

    balanced: rows of `search.balances`. Combinations without LEAST_GRID fixed weights, or without `equal`, are left out.
    """
    rows = []
    for group, own in balanced.groupby("group", sort=False):
        kinds = own.drop_duplicates("name").set_index("name")["weighting"]
        grid, equal = kinds[kinds == "fixed"].index.tolist(), kinds[kinds == "equal"].index.tolist()
        others = kinds[~kinds.isin(["fixed", "equal"])].index.tolist()
        if len(grid) < LEAST_GRID or not equal:
            continue
        for block in blocks(view):
            known = [name for name in grid if name in block.losses]
            if len(known) < LEAST_GRID or equal[0] not in block.losses:
                continue
            best = max(known, key=lambda name: float(block.losses[name].to_numpy().mean()))
            for name in [name for name in others if name in block.losses]:
                found = between(block, best, name, equal[0])
                rows.append(
                    {"protocol": view.protocol, "group": group, "test_set": block.test_set, "metric": block.metric}
                    | {"best": best, "name": name, "value": float(block.losses[name].to_numpy().mean())}
                    | {"regret": found.value, "low": found.low, "high": found.high}
                    | {"seeds": len(block.together([best, name, equal[0]])[0])}
                )
    return pd.DataFrame(rows, columns=COLUMNS)


def between(block: Block, best: str, name: str, equal: str) -> Share:
    """The regret of `name` on one metric of one test set."""
    top, mine, zero = block.together([best, name, equal])
    return share(top - mine, top - zero, block.of_items)


def blocks(view: View) -> list[Block]:
    """The scores that balances are judged by: of each test set the selection score, where it has one, then the headline metrics."""
    of_protocol = [block for block in view.analysis.blocks if block.protocol == view.protocol]
    found = []
    for name in view.sets:
        own = [block for block in of_protocol if block.test_set == name]
        found += [*filter(None, [quality(own, view.task)]), *(block for block in own if block.metric in view.headline)]
    return found


def as_text(rows: pd.DataFrame) -> list[dict[str, str]]:
    """The table for people: group, test_set, metric, best, name, value, share."""
    return [
        {"group": row.group, "test_set": row.test_set, "metric": label(row.metric), "best": row.best, "name": row.name}
        | {"value": told(row.metric, row.value), "share": _said(row.regret, row.low, row.high)}
        for row in each(rows)
    ]


def _said(regret: float, low: float, high: float) -> str:
    if np.isnan(regret):
        return UNDEFINED
    ends = "" if np.isnan(low) else f" [{low:.2f}, {high:.2f}]"
    return f"{regret:.2f}{ends}".replace("-", "−")
