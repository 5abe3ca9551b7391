"""One ranking beside another of the same losses: their places, scores and updates."""

from __future__ import annotations

from typing import Any

import pandas as pd

from harness.report import tables
from harness.report.numbers import listed, number
from harness.report.view import View


def side_by_side(before: View, after: View, test_set: str) -> dict[str, Any]:
    """rows: of each loss that both have its places (was, now, change), updates and scores (before and after by turns, for each of
    metrics), best first; moved: which losses rise and fall, in words, "" where none does.

    Places are among those that both have, so that a loss which was not run again does not shift the others.
    """
    first, second = (tables.places(view.analysis, view.protocol, test_set) for view in (before, after))
    both = [name for name in second if name in first]
    was, now = _among(first, both), _among(second, both)
    metrics = [metric for metric in after.headline if metric in before.headline]
    updates = [_updates(view.losses) for view in (before, after)]
    rows = []
    for name in sorted(both, key=lambda name: (now[name], was[name])):
        scores = [_score(view, test_set, metric, name) for metric in metrics for view in (before, after)]
        row = {"loss": name, "was": was[name], "now": now[name], "change": _change(was[name] - now[name])}
        rows.append(row | {"updates": [of.get(name, "–") for of in updates], "scores": scores})
    return {"name": test_set, "rows": rows, "metrics": metrics, "moved": _moved(was, now)}


def _among(places: dict[str, int], names: list[str]) -> dict[str, int]:
    ranks = pd.Series({name: places[name] for name in names}, dtype=float).rank(method="min")
    return {str(name): int(rank) for name, rank in ranks.items()}


def _moved(was: dict[str, int], now: dict[str, int]) -> str:
    """ "a rises from place 3 to 1; b falls from place 1 to 2, c from place 2 to 3"."""

    def moved(names: list[str], verb: str) -> list[str]:
        places = [f"from place {was[name]} to {now[name]}" for name in names]
        parts = [
            f"{name} {verb} {place}" if k == 0 else f"{name} {place}"
            for k, (name, place) in enumerate(zip(names, places, strict=True))
        ]
        return [listed(parts, 9)] if parts else []

    up = sorted((name for name in now if now[name] < was[name]), key=lambda name: now[name] - was[name])
    down = sorted((name for name in now if now[name] > was[name]), key=lambda name: was[name] - now[name])
    return "; ".join(moved(up, "rises") + moved(down, "falls"))


def _change(places: int) -> str:
    return f"▲ {places}" if places > 0 else f"▼ {-places}" if places < 0 else "="


def _updates(losses: pd.DataFrame) -> dict[str, str]:
    """Loss -> its updates, as text."""
    spans = losses.groupby("name")["updates"].agg(["min", "max"]).dropna()
    return {
        str(loss): f"{int(row['min']):,}" if row["min"] == row["max"] else f"{int(row['min']):,} to {int(row['max']):,}"
        for loss, row in spans.iterrows()
    }


def _score(view: View, test_set: str, metric: str, loss: str) -> str:
    rows = view.ranking
    own = rows[(rows["test_set"] == test_set) & (rows["metric"] == metric) & (rows["loss"] == loss)]
    return number(metric, float(own["mean"].iloc[0])) if len(own) else "–"
