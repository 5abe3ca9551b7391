"""Critical differences: how far two mean ranks must lie apart before they differ (Demšar 2006, JMLR 7), with seeds as blocks.

Items are no blocks here: a thousand of them would make any two trainings differ. With the few seeds that trainings get, the
critical difference of many losses spans most of the ranks and shows nothing; then the tie groups of paired differences, which are
far sharper, take its place.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import stats

from harness.intervals import ALPHA


@dataclass(frozen=True)
class Critical:
    """losses: best mean rank first; ranks: their mean ranks over the seeds (1 is best); difference: the critical one; p: of the
    Friedman test that they all rank alike."""

    losses: list[str]
    ranks: list[float]
    difference: float
    seeds: int
    p: float

    @property
    def useful(self) -> bool:
        """Whether a diagram can show anything: the critical difference is below a third of the number of losses."""
        return self.difference < len(self.losses) / 3

    @property
    def groups(self) -> list[tuple[int, int]]:
        """First and last places of the widest runs of losses that lie within the critical difference, those of one left out."""
        ends = [int(np.searchsorted(self.ranks, rank + self.difference, side="right")) - 1 for rank in self.ranks]
        widest = [(i, end) for i, end in enumerate(ends) if i == 0 or end > ends[i - 1]]
        return [(i, end) for i, end in widest if end > i]


def critical_difference(losses: int, seeds: int, alpha: float = ALPHA) -> float:
    """Nemenyi's: the difference of mean ranks of `losses` over `seeds` blocks that chance exceeds with probability alpha."""
    quantile = stats.studentized_range.ppf(1 - alpha, losses, np.inf) / np.sqrt(2)
    return float(quantile * np.sqrt(losses * (losses + 1) / (6 * seeds)))


def friedman(scores: ArrayLike) -> float:
    """p-value of the Friedman test, ties counted, that all columns rank alike. scores: (seeds, losses)."""
    values = np.asarray(scores, dtype=float)
    if values.shape[1] < 3 or values.shape[0] < 2 or (np.ptp(values, axis=1) == 0).all():
        return float("nan")
    return float(stats.friedmanchisquare(*values.T).pvalue)


def of_losses(tables: dict[str, pd.DataFrame]) -> Critical | None:
    """Of the mean scores of each seed that all losses have; None below three losses or two seeds. tables: name -> (seeds x
    items), higher is better."""
    means = pd.DataFrame({name: table.mean(axis=1) for name, table in tables.items()}).dropna()
    if means.shape[1] < 3 or means.shape[0] < 2:
        return None
    ranks = means.rank(axis=1, ascending=False).mean().sort_values(kind="stable")
    difference = critical_difference(means.shape[1], means.shape[0])
    return Critical(list(ranks.index), ranks.tolist(), difference, len(means), friedman(means))
