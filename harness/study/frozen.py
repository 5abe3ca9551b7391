"""The control of weights that are learned: the same training under the weights that they ended on, from its first update.

It tells whether the path of the weights mattered or only their end. It begins when the learned runs are confirmed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from harness import entrants, losses, outbox
from harness.context import Context, Planned
from harness.entrants import Entrant
from harness.study import parents
from harness.study.tuning import Choice

TAIL = 0.1  # share of the updates, the last ones, over which weights are averaged


def of(context: Context, learned: Entrant, choice: Choice) -> Entrant | None:
    """The entrant with the weights that a learned one ended on: the mean over the last tenth of the updates, and over the
    seeds, the first term's being 1. Decided once for a setting, so that more seeds make no second control of it; None where
    no seed ended well."""
    setting = {"lr": choice.lr, "values": dict(choice.values)}
    kept = parents.read(context, learned, "frozen")
    if kept is None or kept["setting"] != setting:
        weights = outbox.answer(context.tracker, lambda: _ended_on(context, learned, choice))
        if not weights:
            return None
        kept = {"setting": setting, "weights": weights}
        parents.write(context, learned, "frozen", kept)
    return entrants.frozen(learned, kept["weights"])


def known(context: Context, learned: Entrant) -> Entrant | None:
    """The entrant of a learned one, where it is decided already."""
    kept = parents.read(context, learned, "frozen")
    return entrants.frozen(learned, kept["weights"]) if kept else None


def _ended_on(context: Context, learned: Entrant, choice: Choice) -> list[float]:
    means = []
    for seed in context.study.seed_list:
        planned = Planned(learned.loss, "confirm", seed, choice.lr, learned.weighting, choice.values)
        table = _curves(context, planned)
        if table is not None:
            columns = [f"weight/{name}" for name in losses.parse(learned.loss).names]
            means.append(table[columns].tail(max(1, round(TAIL * len(table)))).to_numpy().mean(0))
    if not means:
        return []
    weights = np.mean(means, 0)
    weights /= weights[0] if weights[0] > 0 else weights.max()
    return [float(f"{weight:.4g}") for weight in weights]


def _curves(context: Context, planned: Planned) -> Any:
    run = context.tracker.find(context.identity(planned))
    path = context.tracker.artifact(run.info.run_id, "training.csv") if run is not None else None
    return pd.read_csv(path) if path is not None else None
