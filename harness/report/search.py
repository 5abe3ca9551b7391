"""Balances of combinations: how score follows the weight, where learned weights go, what a search of weights or settings found."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from harness import losses
from harness.errors import UserError
from harness.losses.expressions import written
from harness.losses.weightings import get_weighting
from harness.metrics import METRICS
from harness.report import regret, search_plots, versus_equal
from harness.report.blocks import each
from harness.report.numbers import number
from harness.report.view import View, svg

TAIL = 0.1  # share of the updates over which a weight that was learned is averaged


def section(view: View) -> dict[str, Any]:
    """What its template shows; {} where no combination was trained and nothing searched."""
    found = view.results.search
    balanced = balances(view)
    curves = found.weights.merge(_names(view, "run_id"), on="run_id")
    moving = [name for name in view.order if name in set(curves["name"]) and _moves(curves[curves["name"] == name])]
    trials, importances, fronts = (_own(view, table) for table in (found.trials, found.importances, found.fronts))
    sensitive = sensitivity(balanced)
    compared = versus_equal.table(balanced, regret.blocks(view))
    weightings = dict(zip(balanced["name"], balanced["shown"], strict=True))
    shown = {
        "worth": versus_equal.sentences(compared, weightings),
        "compared": versus_equal.as_text(compared),
        "sensitivity": [(group, svg(search_plots.sensitivity(rows))) for group, rows in sensitive.items()],
        "regret": regret.as_text(regret.table(view, balanced)),
        "weights": svg(search_plots.weights(curves[curves["name"].isin(moving)], moving)) if moving else None,
        "trials": [(name, svg(search_plots.trials(rows))) for name, rows in trials.groupby("loss", sort=False)],
        "importances": _shares(importances, trials),
        "fronts": [(name, _front(rows)) for name, rows in fronts.groupby("loss", sort=False)],
    }
    return shown if any(shown.values()) else {}


def _names(view: View, *columns: str) -> pd.DataFrame:
    """Shown names of the trained runs that are not stale."""
    fresh = view.losses[~view.losses["stale"]]
    return fresh.assign(frozen_of=fresh.get("frozen_of", ""))[[*columns, "name"]].drop_duplicates()


def _own(view: View, table: pd.DataFrame) -> pd.DataFrame:
    """The rows of this protocol, `loss` being the shown name."""
    names = _names(view, "loss", "weighting").rename(columns={"name": "shown"})
    own = table[table["protocol"] == view.protocol].merge(names, on=["loss", "weighting"])
    return own.assign(loss=own["shown"])


def _moves(curves: pd.DataFrame) -> bool:
    spread = curves[curves["what"] == "weight"].groupby(["run_id", "term"])["value"]
    return bool((spread.max() > 1.001 * spread.min()).any())


def balances(view: View) -> pd.DataFrame:
    """One row for each combination, test set and metric: group (its terms without weights, in one order), name, weighting (its
    name), shown (with its settings; "frozen, of dwa"), frozen_of, plain (fixed weights of 1), ratio (the weight of the second term
    of a group of two over the first's), test_set, metric, mean, tie_group."""
    groups: dict[frozenset[str], list[str]] = {}
    rows, ends = [], _ends(view)
    for entrant in each(_names(view, "loss", "weighting", "frozen_of")):
        try:
            combination, weighting = losses.parse(entrant.loss), get_weighting(entrant.weighting).name
        except UserError:  # of a file of a user's own that is not loaded here
            continue
        if len(combination.terms) < 2:
            continue
        texts = [written(term.info, term.settings) for term in combination.terms]
        order = groups.setdefault(frozenset(texts), texts)  # as it was first written
        fixed = {name: term.weight for name, term in zip(combination.names, combination.terms, strict=True)}
        end = fixed if weighting == "fixed" else ends.get(entrant.name, {})
        weights = dict(zip(texts, (end.get(name, np.nan) for name in combination.names), strict=True))
        first, second = (weights[text] for text in order[:2])
        ratio = second / first if len(order) == 2 and first > 0 else np.nan
        group = " + ".join(order)
        about = {"group": group, "loss": entrant.name, "weighting": weighting, "frozen_of": entrant.frozen_of}
        shown = f"frozen, of {entrant.frozen_of}" if entrant.frozen_of else entrant.weighting
        plain = weighting == "fixed" and set(fixed.values()) == {1.0}
        rows.append(about | {"shown": shown, "plain": plain, "ratio": ratio})
    columns = ["group", "loss", "weighting", "frozen_of", "shown", "plain", "ratio"]
    table = pd.DataFrame(rows, columns=columns)
    scores = view.ranking.loc[
        view.ranking["metric"].isin(view.headline), ["loss", "test_set", "metric", "mean", "tie_group"]
    ]
    return table.merge(scores, on="loss").rename(columns={"loss": "name"})


def _ends(view: View) -> dict[str, dict[str, float]]:
    """Name -> term -> its weight over the last tenth of the updates, the mean of the seeds."""
    found = view.results.search.weights.merge(_names(view, "run_id"), on="run_id")
    found = found[found["what"] == "weight"]
    last = found[found["step"] > (1 - TAIL) * found.groupby("run_id")["step"].transform("max")]
    ends: dict[str, dict[str, float]] = {}
    for row in each(last.groupby(["name", "term"])["value"].mean().reset_index()):
        ends.setdefault(row.name, {})[row.term] = row.value
    return ends


def sensitivity(balanced: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Group -> rows of `balances` on the first test set, of pairs that were trained at several fixed weights."""
    found = {}
    for group, rows in balanced.dropna(subset=["ratio"]).groupby("group", sort=False):
        first = rows[rows["test_set"] == rows["test_set"].iloc[0]]
        if first.loc[first["weighting"] == "fixed", "name"].nunique() >= regret.LEAST_GRID:
            found[str(group)] = first
    return found


def _shares(importances: pd.DataFrame, trials: pd.DataFrame) -> list[tuple[str, int, str, list[tuple[str, str]]]]:
    """Loss, how many trials that ended by themselves tell it, what was chosen, and (name, share) from the largest share down."""
    ended = trials[trials["score"].notna()].groupby("loss")["trial"].nunique()
    best = trials[trials["chosen"].astype(bool)].drop_duplicates(["loss", "name"])
    chosen = {loss: ", ".join(f"{row.name} {row.value:.3g}" for row in each(own)) for loss, own in best.groupby("loss")}
    return [
        (
            str(loss),
            int(ended.get(loss, 0)),
            chosen.get(loss, ""),
            [(row.name, f"{100 * row.share:.0f} %") for row in each(own.sort_values("share", ascending=False))],
        )
        for loss, own in importances.groupby("loss", sort=False)
    ]


def _front(rows: pd.DataFrame) -> dict[str, Any]:
    wide = rows.pivot_table(index="setting", columns="objective", values="value", sort=False)
    wide = wide.sort_values(wide.columns[0], ascending=False)
    heads = [METRICS[name].label if name in METRICS else name for name in wide.columns]
    cells = [
        (setting, [number(name, value) if name in METRICS else f"{value:.3g}" for name, value in row.items()])
        for setting, row in wide.iterrows()
    ]
    return {"heads": heads, "rows": cells}
