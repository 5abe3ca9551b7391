"""What MLflow knows of balances and searches: weights over updates, the trials of a search, what mattered in it, its front."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from harness.losses.expressions import literal
from harness.tracking import SETTLED, Tracker

if TYPE_CHECKING:
    from mlflow.entities import Run

POINTS = 60  # of a curve of weights
COLUMNS = {
    "weights": "run_id step what term value",
    "trials": "protocol loss weighting trial name value score chosen",
    "importances": "protocol loss weighting name share",
    "edges": "protocol loss weighting name",
    "fronts": "protocol loss weighting setting objective value",
}


def _empty(name: str) -> pd.DataFrame:
    return pd.DataFrame(columns=COLUMNS[name].split())


@dataclass
class Found:
    """weights: of the confirmed runs of combinations, means over a few updates: run_id, step, what ("weight" or
        "log_variance"), term, value.
    trials: one row for each value that a search set in a trial: protocol, loss, weighting, trial (run id), name ("lr", "w2",
        "si_sdr.max_db"), value, score (NaN: it did not end), chosen.
    importances: protocol, loss, weighting, name, share (of 1).
    edges: protocol, loss, weighting, name of what was chosen so near to an end of what was searched that the best may lie beyond.
    fronts: the settings that no other beats in every objective: protocol, loss, weighting, setting (text), objective, value.
    """

    weights: pd.DataFrame = field(default_factory=partial(_empty, "weights"))
    trials: pd.DataFrame = field(default_factory=partial(_empty, "trials"))
    importances: pd.DataFrame = field(default_factory=partial(_empty, "importances"))
    edges: pd.DataFrame = field(default_factory=partial(_empty, "edges"))
    fronts: pd.DataFrame = field(default_factory=partial(_empty, "fronts"))


def read(tracker: Tracker, runs: Sequence[Run], finished: Sequence[Run]) -> Found:
    """runs: all of a store that have a phase; finished: those that are judged on test."""
    parents = {run.info.run_id: run for run in runs if "values" in json.loads(run.data.tags.get("selected", "{}"))}
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in COLUMNS}
    for identifier, parent in parents.items():
        of = {name: parent.data.tags[name] for name in ("protocol", "loss", "weighting")}
        chosen = json.loads(parent.data.tags["selected"])
        importance = tracker.read_json(identifier, "importance.json") or {}
        rows["importances"] += [of | {"name": name, "share": share} for name, share in importance.items()]
        rows["edges"] += [of | {"name": name} for name in chosen.get("edge", ())]
        rows["fronts"] += [
            of | {"setting": _setting(point["values"]), "objective": name, "value": value}
            for point in chosen.get("front", ())
            for name, value in point["objectives"].items()
        ]
    for run in runs:
        owner = parents.get(run.data.tags.get("mlflow.parentRunId", ""))
        if owner is not None and run.data.tags["phase"] == "tune" and run.data.tags.get("state") in SETTLED:
            rows["trials"] += _trial(run, owner)
    weights = [part for run in finished if " + " in run.data.tags["loss"] for part in _weights(tracker, run)]
    tables = {name: pd.DataFrame(own, columns=COLUMNS[name].split()) for name, own in rows.items()}
    return Found(**tables | {"weights": pd.concat(weights, ignore_index=True) if weights else tables["weights"]})


def _trial(run: Run, parent: Run) -> list[dict[str, Any]]:
    choice = json.loads(parent.data.tags["selected"])
    values = {name: float(run.data.params[name]) for name in ("lr", *choice["values"]) if name in run.data.params}
    ended = run.data.tags["state"] == "finished"
    wanted = {"lr": choice["lr"], **choice["values"]}
    return [
        {name: parent.data.tags[name] for name in ("protocol", "loss", "weighting")}
        | {"trial": run.info.run_id, "name": name, "value": value}
        | {"score": run.data.metrics.get("validation/score", np.nan) if ended else np.nan}
        | {"chosen": all(np.isclose(values[key], wanted[key], rtol=1e-5) for key in values)}
        for name, value in values.items()
    ]


def _weights(tracker: Tracker, run: Run) -> list[pd.DataFrame]:
    """The curves of a training that has any, thinned to means."""
    path = tracker.artifact(run.info.run_id, "training.csv")
    if path is None:
        return []
    table = pd.read_csv(path, usecols=lambda name: name == "step" or name.startswith(("weight/", "log_variance/")))
    if len(table.columns) < 2:
        return []
    every = max(1, -(-len(table) // POINTS))
    thin = table.groupby(np.arange(len(table)) // every).mean()
    long = thin.melt("step", var_name="column")
    parts = long.pop("column").str.split("/", n=1, expand=True)
    return [long.assign(run_id=run.info.run_id, what=parts[0], term=parts[1])[COLUMNS["weights"].split()]]


def _setting(values: dict[str, float]) -> str:
    return ", ".join(f"{name}={literal(float(f'{value:.3g}'))}" for name, value in values.items())
