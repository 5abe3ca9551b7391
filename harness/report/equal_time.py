"""What changes when every loss gets the same time instead of the same number of updates, and how long each takes to a target."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from harness.report import tables
from harness.report.numbers import listed, number
from harness.report.ranking import Analysis
from harness.report.view import View

if TYPE_CHECKING:
    from harness.report.runs import Results

SCORE = "score"  # of validation, by which the study selects


def first_at(seconds: ArrayLike, values: ArrayLike, target: float) -> float:
    """Seconds at the first look at which a curve has reached the target; infinite where it never has.

    seconds, values: (looks,) in the order of training. Nothing is read between looks (Dahl et al. 2023, AlgoPerf).
    """
    reached = np.flatnonzero(np.asarray(values, dtype=float) >= target)
    return float(np.asarray(seconds, dtype=float)[reached[0]]) if len(reached) else float("inf")


def target(curves: pd.DataFrame, reference: str) -> float:
    """The reference's mean score at its last look; NaN without it. curves: loss, seed, step, seconds, value of the score."""
    own = curves[curves["loss"] == reference]
    return float(own.loc[own["step"] == own["step"].max(), "value"].mean()) if len(own) else float("nan")


def times_to(curves: pd.DataFrame, goal: float, diverged: dict[str, int]) -> pd.DataFrame:
    """Loss, seconds (to the goal, of the mean curve of its seeds), reached and seeds (how many seeds reach it by themselves, of
    how many). A seed that diverged never does, and then the mean does not either. diverged: loss -> such seeds.
    """
    rows = []
    for loss, own in curves.groupby("loss", sort=False):
        mean = own.groupby("step")[["seconds", "value"]].mean().sort_index()
        alone = [first_at(s["seconds"], s["value"], goal) for _, s in own.sort_values("step").groupby("seed")]
        lost = diverged.get(str(loss), 0)
        seconds = float("inf") if lost else first_at(mean["seconds"], mean["value"], goal)
        row = {"loss": loss, "seconds": seconds, "reached": int(np.isfinite(alone).sum()), "seeds": len(alone) + lost}
        rows.append(row)
    known = {row["loss"] for row in rows}
    rows += [
        {"loss": loss, "seconds": float("inf"), "reached": 0, "seeds": lost}
        for loss, lost in diverged.items()
        if loss not in known
    ]
    return pd.DataFrame(rows, columns=["loss", "seconds", "reached", "seeds"])


def section(view: View) -> dict[str, Any]:
    """Both rankings side by side, in words and as a table, and the times to the target."""
    found = _to_target(view)
    if view.timed is None or view.results.equal_time is None:
        return found
    sets = [_compared(view, view.timed, view.results.equal_time, name) for name in view.sets]
    return found | {"sets": [one for one in sets if one["rows"]]}


def _compared(view: View, timed: Analysis, results: Results, test_set: str) -> dict[str, Any]:
    before = tables.places(view.analysis, view.protocol, test_set)
    after = tables.places(timed, view.protocol, test_set)
    both = [name for name in after if name in before]
    # Places among those that have both, so that a loss which was not run again does not shift the others.
    was, now = (_among(places, both) for places in (before, after))
    metrics = [metric for metric in view.headline if metric in set(timed.ranking["metric"])]
    updates = [_updates(_losses(one, view)) for one in (view.results, results)]
    rows = []
    for name in sorted(both, key=lambda name: (now[name], was[name])):
        scores = [
            _score(one, view.protocol, test_set, metric, name) for metric in metrics for one in (view.analysis, timed)
        ]
        row = {"loss": name, "was": was[name], "now": now[name], "change": _change(was[name] - now[name])}
        rows.append(row | {"updates": [of.get(name, "–") for of in updates], "scores": scores})
    return {"name": test_set, "rows": rows, "metrics": metrics, "words": _words(was, now)}


def _among(places: dict[str, int], names: list[str]) -> dict[str, int]:
    ranks = pd.Series({name: places[name] for name in names}, dtype=float).rank(method="min")
    return {str(name): int(rank) for name, rank in ranks.items()}


def _words(was: dict[str, int], now: dict[str, int]) -> str:
    """ "At equal time a rises from place 3 to 1; b falls from place 1 to 2, c from place 2 to 3." """

    def moved(names: list[str], verb: str) -> list[str]:
        places = [f"from place {was[name]} to {now[name]}" for name in names]
        parts = [
            f"{name} {verb} {place}" if k == 0 else f"{name} {place}"
            for k, (name, place) in enumerate(zip(names, places, strict=True))
        ]
        return [listed(parts, 9)] if parts else []

    up = sorted((name for name in now if now[name] < was[name]), key=lambda name: now[name] - was[name])
    down = sorted((name for name in now if now[name] > was[name]), key=lambda name: was[name] - now[name])
    changes = moved(up, "rises") + moved(down, "falls")
    return (
        f"At equal time {'; '.join(changes)}."
        if changes
        else "At equal time the order of the losses is that at equal updates."
    )


def _change(places: int) -> str:
    return f"▲ {places}" if places > 0 else f"▼ {-places}" if places < 0 else "="


def _losses(results: Results, view: View) -> pd.DataFrame:
    return view.losses if results is view.results else View(results, view.analysis, view.protocol).losses


def _updates(losses: pd.DataFrame) -> dict[str, str]:
    """Loss -> its updates, as text."""
    spans = losses.groupby("name")["updates"].agg(["min", "max"]).dropna()
    return {
        str(loss): f"{int(row['min']):,}" if row["min"] == row["max"] else f"{int(row['min']):,} to {int(row['max']):,}"
        for loss, row in spans.iterrows()
    }


def _score(analysis: Analysis, protocol: str, test_set: str, metric: str, loss: str) -> str:
    rows = analysis.ranking
    own = rows[(rows["protocol"] == protocol) & (rows["test_set"] == test_set) & (rows["metric"] == metric)]
    own = own[own["loss"] == loss]
    return number(metric, float(own["mean"].iloc[0])) if len(own) else "–"


def _to_target(view: View) -> dict[str, Any]:
    """goal: the score to reach; times: loss, seconds, ratio to the reference's and seeds that reach it, for each kind of run."""
    curves, diverged = _curves(view.results, view)
    goal = target(curves, view.reference)
    if np.isnan(goal):
        return {}
    kinds = [("equal updates", curves, diverged)]
    if view.results.equal_time is not None:
        kinds.append(("equal time", *_curves(view.results.equal_time, view)))
    made = [(kind, times_to(own, goal, lost).set_index("loss")) for kind, own, lost in kinds]
    base = made[0][1]["seconds"].get(view.reference, np.nan)
    order = [name for name in view.order if any(name in table.index for _, table in made)]
    rows = [(name, [_cells(table, name, base) for _, table in made]) for name in order]
    return {"goal": f"{goal:.3f}", "kinds": [kind for kind, _ in made], "times": rows, "reference": view.reference}


def _cells(table: pd.DataFrame, name: str, base: float) -> list[str]:
    if name not in table.index:
        return ["–"] * 3
    row: Any = table.loc[name]
    seeds = f"{int(row['reached'])} of {int(row['seeds'])}"
    if not np.isfinite(row["seconds"]):
        return ["∞", "–", seeds]
    ratio = "–" if not base > 0 else f"{row['seconds'] / base:.2f}"
    return [f"{row['seconds']:.1f}", ratio, seeds]


def _curves(results: Results, view: View) -> tuple[pd.DataFrame, dict[str, int]]:
    """Curves of the selection score of one protocol, as `times_to` reads them, and how many seeds of each loss diverged."""
    runs = _losses(results, view)
    runs = runs[~runs["stale"]]
    lost = runs[runs["state"] == "diverged"].groupby("name").size()
    names = runs[["run_id", "name", "seed"]].rename(columns={"name": "loss"})
    curves = results.curves
    if curves.empty:
        return pd.DataFrame(columns=["loss", "seed", "step", "seconds", "value"]), {}
    own = curves[curves["metric"] == SCORE].merge(names, on="run_id").dropna(subset=["value"])
    return own, {str(name): int(count) for name, count in lost.items()}
