"""What changes when every loss gets the same time instead of the same number of updates, and how long each takes to a target."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from harness.report import cost
from harness.report.compared import side_by_side
from harness.report.view import View

if TYPE_CHECKING:
    from harness.report.runs import Results

SCORE = "score"  # of validation, by which the study selects


def first_at(updates: ArrayLike, values: ArrayLike, target: float) -> float:
    """Updates at the first look at which a curve has reached the target; infinite where it never has.

    updates, values: (looks,) in the order of training. Nothing is read between looks (Dahl et al. 2023, AlgoPerf).
    """
    reached = np.flatnonzero(np.asarray(values, dtype=float) >= target)
    return float(np.asarray(updates, dtype=float)[reached[0]]) if len(reached) else float("inf")


def target(curves: pd.DataFrame, reference: str) -> float:
    """The reference's mean score at its last look; NaN without it. curves: loss, seed, step, value of the score."""
    own = curves[curves["loss"] == reference]
    return float(own.loc[own["step"] == own["step"].max(), "value"].mean()) if len(own) else float("nan")


def updates_to(curves: pd.DataFrame, goal: float, diverged: dict[str, int]) -> pd.DataFrame:
    """Loss, updates (to the goal, of the mean curve of its seeds), reached and seeds (how many seeds reach it by themselves, of
    how many). A seed that diverged never does, and then the mean does not either. diverged: loss -> such seeds.
    """
    rows = []
    for loss, own in curves.groupby("loss", sort=False):
        mean = own.groupby("step")["value"].mean().sort_index()
        alone = [first_at(s["step"], s["value"], goal) for _, s in own.sort_values("step").groupby("seed")]
        lost = diverged.get(str(loss), 0)
        updates = float("inf") if lost else first_at(mean.index, mean, goal)
        row = {"loss": loss, "updates": updates, "reached": int(np.isfinite(alone).sum()), "seeds": len(alone) + lost}
        rows.append(row)
    known = {row["loss"] for row in rows}
    rows += [
        {"loss": loss, "updates": float("inf"), "reached": 0, "seeds": lost}
        for loss, lost in diverged.items()
        if loss not in known
    ]
    return pd.DataFrame(rows, columns=["loss", "updates", "reached", "seeds"])


def section(view: View) -> dict[str, Any]:
    """Both rankings side by side, in words and as a table, and the times to the target."""
    found = _to_target(view)
    if view.timed is None or view.results.equal_time is None:
        return found
    timed = View(view.results.equal_time, view.timed, view.protocol)
    sets = [_compared(view, timed, name) for name in view.sets]
    return found | {"sets": [one for one in sets if one["rows"]]}


def _compared(view: View, timed: View, test_set: str) -> dict[str, Any]:
    it = side_by_side(view, timed, test_set)
    changes = it["moved"] or "the order of the losses is that at equal updates"
    return it | {"words": f"At equal time {changes}."}


def _to_target(view: View) -> dict[str, Any]:
    """goal: the score to reach; times: loss, then for each kind of run updates to it, their time, its ratio to the reference's and
    seeds that reach it; place: where a step was timed, "" where it was not.

    The time is that of so many steps as measured on an idle device: what trainings took tells what ran beside them.
    """
    curves, diverged = _curves(view.results, view)
    goal = target(curves, view.reference)
    if np.isnan(goal):
        return {}
    kinds = [("equal updates", curves, diverged)]
    if view.results.equal_time is not None:
        kinds.append(("equal time", *_curves(view.results.equal_time, view)))
    made = [(kind, updates_to(own, goal, lost).set_index("loss")) for kind, own, lost in kinds]
    base = made[0][1]["updates"].get(view.reference, np.nan)
    timed = cost.at_home(view).drop_duplicates("name").set_index("name")
    order = [name for name in view.order if any(name in table.index for _, table in made)]
    rows = [(name, [_cells(table, name, base, timed) for _, table in made]) for name in order]
    place = str(timed["place"].iloc[0]) if len(timed) else ""
    found = {"goal": f"{goal:.3f}", "kinds": [kind for kind, _ in made], "times": rows, "place": place}
    seconds = f"Seconds: as many steps as timed on {place}" if place else "Seconds: not known, no step was timed"
    told = (
        f"Updates to the first look at validation with a selection score of {goal:.3f}, what {view.reference} ends with, by the "
        f"mean over seeds; ∞ where it is never reached or a seed diverged. {seconds}; then the ratio to {view.reference}, and how "
        "many seeds reach the score by themselves."
    )
    return found | {"reference": view.reference, "told": told}


def _cells(table: pd.DataFrame, name: str, base: float, timed: pd.DataFrame) -> list[str]:
    if name not in table.index:
        return ["–"] * 4
    row: Any = table.loc[name]
    seeds = f"{int(row['reached'])} of {int(row['seeds'])}"
    if not np.isfinite(row["updates"]):
        return ["∞", "∞", "–", seeds]
    updates = f"{row['updates']:,.0f}"
    if name not in timed.index:
        return [updates, "–", "–", seeds]
    step: Any = timed.loc[name]
    seconds = f"{row['updates'] * step['step_ms'] / 1000:.1f}"
    return [updates, seconds, f"{row['updates'] / base * step['step_ratio']:.2f}" if base > 0 else "–", seeds]


def _curves(results: Results, view: View) -> tuple[pd.DataFrame, dict[str, int]]:
    """Curves of the selection score of one protocol, as `times_to` reads them, and how many seeds of each loss diverged."""
    runs = View(results, view.analysis, view.protocol).losses
    runs = runs[~runs["stale"]]
    lost = runs[runs["state"] == "diverged"].groupby("name").size()
    names = runs[["run_id", "name", "seed"]].rename(columns={"name": "loss"})
    curves = results.curves
    if curves.empty:
        return pd.DataFrame(columns=["loss", "seed", "step", "value"]), {}
    own = curves[curves["metric"] == SCORE].merge(names, on="run_id").dropna(subset=["value"])
    return own, {str(name): int(count) for name, count in lost.items()}
