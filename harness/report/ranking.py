"""Rank the losses of each protocol: means with intervals, paired differences, ties and what they add up to.

The rules: only paired differences are compared, two losses are tied unless the Holm-adjusted
interval of their difference excludes 0, and a loss keeps its place in the ranking of a metric that it optimises
(marked).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from harness.intervals import ALPHA, FULL_SEEDS, Estimate, holm, interval, p_value, two_way, win_probability
from harness.report import identities, raced
from harness.report.blocks import HEARD, Block, blocks, named
from harness.report.overall import goodhart, overall_rows
from harness.report.reliability import split_half
from harness.report.ties import letters, mid_ranks, ranks

if TYPE_CHECKING:
    from harness.report.runs import Results

RANKING = [
    "task",
    "corpus",
    "model",
    "loss",
    "weighting",
    "state",
    "test_set",
    "metric",
    "target",
    "mean",
    "low",
    "high",
    "rank",
    "tie_group",
    "items",
    "missing",
    "floored",
    "seeds",
    "params",
    "protocol",
    "device",
    "run_id",
]
PAIRS = ["a", "b", "test_set", "metric", "diff", "low", "high", "p_adjusted", "p_a_beats_b", "protocol"]
GAINS = [
    "protocol",
    "test_set",
    "metric",
    "loss",
    "baseline",
    "gain",
    "low",
    "high",
    "adjusted_low",
    "adjusted_high",
    "p_adjusted",
]
GAINS += ["p_beats"]
RELIABILITY = ["protocol", "test_set", "metric", "tau", "judged", "separated", "pairs"]
GOODHART = ["protocol", "test_set", "loss", "gained", "lost"]


@dataclass
class Analysis:
    """What the page and the console print. All tables have their columns even when they are empty.

    ranking: one row per loss or control x test set x metric, best mean first, then stale losses, then controls. `rank`
        and `tie_group` are NA and "" for what is not ranked. state: "finished", "1 of 3 diverged", "diverged", "stale",
        "control".
        low, high: marginal 95 % interval, NaN when unknown (one seed). seeds: 0 for controls. floored: scores (seed x
        item).
        run_id: the runs of all seeds, and device: all devices, joined with ";".
        Rows of metric "overall": mean = mean rank over the referee metrics, ties counting half (lower is better), rank
        = place by that mean.
    pairs: every pair of ranked losses; a has the higher mean. low, high: Holm-adjusted interval of the paired
    difference.
    gains: paired difference to the `baseline` with its unadjusted 95 % interval, also for controls.
    reliability: tau-b between disjoint halves of the seeds, over the judged pairs: those of the separated that have seeds enough
        in common. goodhart: losses that beat the reference on a metric they
        optimise and lose to it on a referee. referees: (protocol, test set) -> referee metrics.
    identities: for each group of losses that must tie their largest difference, and whether they do.
    blocks: the scores that all of it rests on.
    """

    ranking: pd.DataFrame
    pairs: pd.DataFrame
    gains: pd.DataFrame
    reliability: pd.DataFrame
    goodhart: pd.DataFrame
    identities: pd.DataFrame
    referees: dict[tuple[str, str], list[str]]
    blocks: list[Block]


def analyse(results: Results) -> Analysis:
    """All statistics of a report; works from zero runs on. Raises ValueError for two runs of one loss and seed."""
    facts = _facts(results.runs)
    ranking: list[dict] = []
    pairs: list[dict] = []
    gains: list[dict] = []
    reliability: list[dict] = []
    made = [block for block in blocks(results) if block.test_set != HEARD]
    races = _races(results.runs)
    for block in made:
        key = {"test_set": block.test_set, "metric": block.metric, "protocol": block.protocol}
        twins = results.identities.get(block.protocol, [])
        own_pairs, beats, order = _compare(block, twins, races.get(block.protocol))
        ranking += [facts[block.protocol, row["loss"]] | row | key for row in _rows(block, beats, order, twins)]
        pairs += [row | key for row in own_pairs]
        gains += [row | key for row in _gains(block)]
        if len(order) > 1:
            tau, judged = split_half(block.losses, beats, order)
            count = {"judged": judged, "separated": int(beats.sum()), "pairs": len(own_pairs)}
            reliability.append({"tau": tau} | count | key)
    for row in ranking:
        row["target"] = row["metric"] in row["targets"]
    overall, referees = overall_rows(ranking)
    table = pd.DataFrame(ranking + overall, columns=RANKING)
    table["rank"] = table["rank"].astype("Int64")
    table["params"] = pd.to_numeric(table["params"]).astype("Int64")  # NA where a control has none
    return Analysis(
        table,
        pd.DataFrame(pairs, columns=PAIRS),
        pd.DataFrame(gains, columns=GAINS),
        pd.DataFrame(reliability, columns=RELIABILITY),
        pd.DataFrame(goodhart(pairs, facts, referees), columns=GOODHART),
        pd.DataFrame(identities.rows(pairs, results.identities), columns=identities.IDENTITIES),
        referees,
        made,
    )


def _facts(runs: pd.DataFrame) -> dict[tuple[str, str], dict]:
    """(protocol, name) -> what a row of the ranking says about the loss itself, whatever the metric."""
    facts: dict[tuple[str, str], dict] = {}
    if runs.empty:
        return facts
    shown = named(runs)
    saved = pd.concat(
        [raced.raced(own)["of"] for _, own in shown.groupby("protocol", sort=False)], keys=shown["protocol"].unique()
    )
    for (protocol, name), own in shown.sort_values("seed").groupby(["protocol", "name"], sort=False):
        first, diverged = own.iloc[0], int((own["state"] == "diverged").sum())
        state = "diverged" if diverged == len(own) else f"{diverged} of {len(own)} diverged" if diverged else "finished"
        state = "control" if first["role"] == "control" else "stale" if first["stale"] else state
        facts[str(protocol), str(name)] = {
            **first[["task", "corpus", "model", "weighting", "role", "params"]],
            "loss": name,
            "state": state,
            "targets": tuple(first["targets"]),
            "seeds": int(own["seed"].notna().sum()),
            "full": saved.get((protocol, name), own["seed"].nunique()) >= FULL_SEEDS,
            "device": _joined(own["device"]),
            "run_id": ";".join(own["run_id"].astype(str)),
        }
    return facts


def _races(runs: pd.DataFrame) -> dict[str, raced.Decided]:
    """What was decided by race, by protocol."""
    if runs.empty:
        return {}
    shown = named(runs)
    fresh = shown[~shown["stale"]].groupby("protocol", sort=False)
    found = {str(protocol): raced.decided(own) for protocol, own in fresh}
    return {protocol: race for protocol, race in found.items() if race is not None}


def _joined(values: pd.Series) -> str:
    return ";".join(sorted({str(v) for v in values.dropna()}))


def _estimates(differences: list[np.ndarray], clusters: np.ndarray) -> Estimate:
    """One Estimate of shape (tables,) from tables (seeds, items), those with equally many seeds at once."""
    columns: np.ndarray = np.full((3, len(differences)), np.nan)
    seeds = np.array([len(d) for d in differences], dtype=int)
    for count in np.unique(seeds):
        same = np.flatnonzero(seeds == count)
        columns[:, same] = two_way(np.stack([differences[k] for k in same]), clusters)
    return Estimate(*columns)


def _compare(
    block: Block, twins: list[identities.Group], race: raced.Decided | None
) -> tuple[list[dict], np.ndarray, list[str]]:
    """Rows of `pairs`, the matrix (losses, losses) "row beats column for certain", the losses best mean first. Of twins, which must
    tie, none beats another by less than rounding shows. race: what it has decided stays decided."""
    order = sorted(block.losses, key=lambda name: -block.losses[name].to_numpy().mean())
    couples = list(combinations(range(len(order)), 2))
    differences = [block.difference(order[i], order[j]) for i, j in couples]
    clusters = _clusters(block, block.losses)
    estimate = _estimates(differences, clusters)
    winners = [
        (order[i], order[j]) if gain > 0 else (order[j], order[i])
        for (i, j), gain in zip(couples, estimate.mean, strict=True)
    ]
    adjusted, levels = raced.judged(p_value(estimate), winners, race, block.test_set, block.metric)
    low, high = interval(estimate, levels)
    beats = np.zeros((len(order), len(order)), dtype=bool)
    rows = []
    for k, (i, j) in enumerate(couples):
        twin = any(order[i] in group and order[j] in group for group in twins)
        differs = not twin or identities.apart(block.metric, adjusted[k], low[k], high[k])
        if adjusted[k] < ALPHA and differs:  # NaN (one seed) is not below: nothing is known, so they are tied
            beats[(i, j) if estimate.mean[k] > 0 else (j, i)] = True
        rows.append(
            {"a": order[i], "b": order[j], "diff": estimate.mean[k], "low": low[k], "high": high[k]}
            | {"p_adjusted": adjusted[k], "p_a_beats_b": win_probability(differences[k])}
        )
    return rows, beats, order


def _clusters(block: Block, tables: dict[str, pd.DataFrame]) -> np.ndarray:
    items = list(next(iter(tables.values())).columns) if tables else []
    return block.clusters.reindex(items).to_numpy()


def _rows(block: Block, beats: np.ndarray, order: list[str], twins: list[identities.Group]) -> list[dict]:
    """Rows of `ranking` of one block, without the facts about the losses. twins: losses that must tie share a rank if they do."""
    means = [block.losses[name].to_numpy().mean() for name in order]
    groups = letters(means, beats)
    places = identities.share(ranks(beats), order, beats, twins, np.min)
    mids = identities.share(mid_ranks(beats), order, beats, twins, np.mean)
    rows = []
    for i, name in enumerate(order):
        verdict = {"rank": int(places[i]), "tie_group": groups[i], "mid_rank": float(mids[i])}
        rows.append(_row(block, name, block.losses) | verdict)
    for tables in (block.stale, block.controls):
        unranked = [_row(block, name, tables) | {"rank": pd.NA, "tie_group": ""} for name in tables]
        rows += sorted(unranked, key=lambda row: -row["mean"])
    return rows


def _row(block: Block, name: str, tables: dict[str, pd.DataFrame]) -> dict:
    table = tables[name]
    estimate = two_way(table, block.clusters.reindex(table.columns).to_numpy())
    low, high = interval(estimate)
    counts = {"items": table.shape[1], "missing": block.missing, "floored": block.floored.get(name, 0)}
    return {"loss": name, "mean": float(estimate.mean), "low": float(low), "high": float(high)} | counts


def _gains(block: Block) -> list[dict]:
    if not block.baseline:
        return []
    names = [*block.losses, *(name for name in block.controls if name != block.baseline)]
    clusters = _clusters(block, block.controls)
    differences = [block.difference(name, block.baseline) for name in names]
    estimate = _estimates(differences, clusters)
    low, high = interval(estimate)
    adjusted, levels = holm(p_value(estimate))
    wide_low, wide_high = interval(estimate, levels)
    return [
        {
            "loss": name,
            "baseline": block.baseline,
            "gain": estimate.mean[i],
            "low": low[i],
            "high": high[i],
            "p_adjusted": adjusted[i],
        }
        | {"adjusted_low": wide_low[i], "adjusted_high": wide_high[i], "p_beats": win_probability(differences[i])}
        for i, name in enumerate(names)
    ]
