"""How the setting of an entrant is chosen: a grid of learning rates that grows where the best lies on its edge."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from optuna.trial import TrialState

from harness.study.queue import Plan, Queue
from harness.trial import TUNING_SEED

EDGE_POINTS = 2  # rates that a best rate on the edge may add


@dataclass(frozen=True)
class Choice:
    """A setting that was chosen. how: "tuned" or "shipped"; scores: of every rate of a grid, None where it diverged; values:
    what a search set besides the rate; more: what else is worth keeping of it; importance: of each thing that it set."""

    lr: float
    how: str
    scores: Mapping[float, float | None] = field(default_factory=dict)
    values: Mapping[str, float] = field(default_factory=dict)
    more: Mapping[str, Any] = field(default_factory=dict)
    importance: Mapping[str, float] = field(default_factory=dict)

    def as_data(self) -> dict[str, Any]:
        """What the parent's tag `selected` holds."""
        kept = {"lr": self.lr, "tuning": self.how, "scores": {f"{r:.4g}": s for r, s in self.scores.items()}}
        return kept | ({"values": dict(self.values), **self.more} if self.more else {})

    def plan(self, seed: int) -> Plan:
        return {"lr": self.lr, "seed": seed, **self.values}


def best_rate(scores: Mapping[float, float | None]) -> float:
    """The rate with the best score; ties and an all-diverged grid go to the smallest."""
    finished = {rate: score for rate, score in scores.items() if score is not None}
    return min(finished, key=lambda rate: (-finished[rate], rate)) if finished else min(scores)


def next_edge(scores: Mapping[float, float | None], grid: tuple[float, ...]) -> float | None:
    """The rate that a best rate on the edge adds: the next half decade out, at most `EDGE_POINTS` beyond the grid."""
    best = best_rate(scores)
    if len(scores) - len(grid) >= EDGE_POINTS or all(score is None for score in scores.values()):
        return None
    if best not in (min(scores), max(scores)):
        return None
    out = 1 if best == max(scores) else -1
    return float(f"{10 ** ((round(2 * math.log10(best)) + out) / 2):.4g}")


@dataclass
class Grid:
    """The learning rate on a grid that all losses share."""

    queue: Queue
    grid: tuple[float, ...]
    since: datetime

    def rates(self) -> list[float]:
        """The grid, and the rates beyond its ends that were added or tried before."""
        tried = {t.user_attrs["planned"]["lr"] for t in self.queue.trials if "planned" in t.user_attrs}
        return sorted({*self.grid, *(rate for rate in tried if not self.grid[0] <= rate <= self.grid[-1])})

    def scores(self) -> dict[float, float | None]:
        """Selection score of every rate, None where it diverged or failed."""
        stand = {rate: self.queue.of_plan(_plan(rate)) for rate in self.rates()}
        return {
            rate: t.value if t is not None and t.state == TrialState.COMPLETE else None for rate, t in stand.items()
        }

    def chosen(self) -> Choice | None:
        """Plan what is due; what was chosen, None while anything waits or runs."""
        if not self._tuned():
            return None
        scores = self.scores()
        edge = next_edge(scores, self.grid)
        if edge is not None:
            self.queue.enqueue([_plan(edge)], self.since)
            return None
        return Choice(best_rate(scores), "tuned", scores)

    def _tuned(self) -> bool:
        """Whether nothing waits or runs at any rate: also at one beyond the edge that another process has just added, which
        would else be taken to have diverged."""
        while True:
            rates = self.rates()
            if not self.queue.over([_plan(rate) for rate in rates], self.since):
                return False
            if self.rates() == rates:
                return True


def _plan(rate: float) -> Plan:
    return {"lr": rate, "seed": TUNING_SEED}
