"""From the tables of `Results` to arrays: for each protocol, test set and metric, one seeds x items table per loss.

The rules for missing values live here, once: an item without a score is missing for all losses alike, a seed that
diverged scores what the baseline scores (for a denoiser the unprocessed recording), and a control, which has no seed, counts
as two equal rows.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from harness.metrics import METRICS

if TYPE_CHECKING:
    from harness.report.runs import Results

BASELINES = ("unprocessed", "chance", "constant")  # controls from which gains are measured: the first that a task has
AND = " and "  # between weightings that ended on the same weights; a weighting's own text may have commas
HEARD = "training"  # the set that holds what training hears: judged, never ranked


@dataclass
class Block:
    """Scores of one metric on one test set under one protocol.

    losses: name -> table (seeds x items) of the losses that are ranked; controls: name -> (2 equal rows x items);
    stale: name -> table of losses that are shown only, with their own items. All but `stale` share their items, in one order.
    clusters: item -> prompt name. missing: items dropped. floored: name -> scores that are a floor, not a measurement.
    """

    protocol: str
    test_set: str
    metric: str
    losses: dict[str, pd.DataFrame]
    controls: dict[str, pd.DataFrame]
    stale: dict[str, pd.DataFrame]
    clusters: pd.Series
    missing: int
    floored: dict[str, int]
    _arrays: dict[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict, repr=False)

    @property
    def baseline(self) -> str:
        """The control that gains are measured from; "" without any."""
        return baseline(self.controls)

    def difference(self, a: str, b: str) -> np.ndarray:
        """Paired differences a - b, (seeds, items), over the seeds that both have; a control pairs with any seed."""
        seeds, one = self._scores(a)
        if b in self.controls:
            return one - self._scores(b)[1][0]
        others, other = self._scores(b)
        if np.array_equal(seeds, others):
            return one - other
        _, mine, theirs = np.intersect1d(seeds, others, return_indices=True)
        return one[mine] - other[theirs]

    def together(self, names: Collection[str]) -> np.ndarray:
        """(names, seeds, items) scores of losses over the seeds that all of them have."""
        tables = [self.losses[name].sort_index() for name in names]
        common = sorted(set.intersection(*(set(table.index) for table in tables)))
        return np.stack([table.loc[common].to_numpy() for table in tables])

    @property
    def of_items(self) -> np.ndarray:
        """(items,) the cluster of each column of the tables."""
        return self.clusters.reindex(next(iter(self.losses.values())).columns).to_numpy()

    def _scores(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Rising seeds and their scores (seeds, items), kept: of 100 losses there are 5,000 pairs for each metric."""
        if name not in self._arrays:
            table = (self.losses[name] if name in self.losses else self.controls[name]).sort_index()
            self._arrays[name] = table.index.to_numpy(), table.to_numpy()
        return self._arrays[name]


def baseline(names: Collection[str]) -> str:
    """The first of BASELINES that is among the names; "" if none is."""
    return next((name for name in BASELINES if name in names), "")


def named(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs that a report shows, with a column `name`, unique per protocol and loss, and NA stale read as False.

    A stale run is left out where a fresh one of the same loss exists, or one of a later version; a fresh one where the same words
    came to stand for something else (`superseded`). Losses that differ only in their weighting, or in the network of that name,
    get it in brackets. Raises ValueError if a loss has two runs of one seed: which to rank is for the selection to decide.
    """
    runs = runs.copy()
    runs["weighting"] = runs["weighting"].fillna("")
    runs["stale"] = runs["stale"].fillna(False).astype(bool) | superseded(runs)
    runs["seed"] = runs["seed"].astype("Int64")
    loss = ["protocol", "loss", "weighting"]
    none_fresh = runs.groupby(loss)["stale"].transform("all")
    latest = runs["parent"] == runs.groupby(loss)["parent"].transform("last")
    runs = runs[~runs["stale"] | (none_fresh & latest)].copy()
    by_weighting = runs.groupby(loss[:2])["weighting"].transform("nunique") > 1
    by_variant = runs.groupby(loss)["variant"].transform("nunique") > 1
    weighting, variant = runs["weighting"].replace("", "no weighting"), "network " + runs["variant"]
    if "frozen_of" in runs:
        weighting = weighting.where(runs["frozen_of"] == "", "frozen, of " + runs["frozen_of"])
    differs = weighting.where(by_weighting, variant).where(~(by_weighting & by_variant), weighting + ", " + variant)
    runs["name"] = runs["loss"].where(~(by_weighting | by_variant), runs["loss"] + " (" + differs + ")")
    twice = runs[runs.duplicated(["protocol", "name", "seed"], keep=False)]
    if len(twice):
        row = twice.iloc[0]
        raise ValueError(f"two runs of {row['name']!r} with seed {row['seed']} under protocol {row['protocol']}")
    return runs


def superseded(runs: pd.DataFrame) -> pd.Series:
    """Which fresh runs are of an earlier form of a loss: its words say the same, yet have the newest runs of another identity, as
    where a setting's default was changed, or a file of the user's own.
    """
    stale = runs["stale"].fillna(False).astype(bool)
    loss = ["protocol", "loss", "weighting", "variant"]
    newest = runs[~stale].groupby(loss, dropna=False)["parent"].transform("last").reindex(runs.index)
    return newest.notna() & (runs["parent"] != newest)


def each(frame: pd.DataFrame) -> Iterator[Any]:
    """Rows as named tuples; typed as Any, because what a column holds is written in `Results`, not in its type."""
    return frame.itertuples(index=False)


def levels(snr: pd.Series) -> pd.Series:
    """Input SNRs as they may head columns: themselves, or where there are more than six to the nearest 5 dB."""
    return (snr / 5).round() * 5 if snr.nunique() > 6 else snr


def blocks(results: Results) -> Iterator[Block]:
    """All blocks with at least one score: protocols and test sets as they come, metrics in the order of METRICS."""
    if results.runs.empty:
        return
    runs = named(results.runs)
    for protocol, of_protocol in runs.groupby("protocol", sort=False):
        scores = results.scores
        if not scores.empty:
            scores = scores[scores["run_id"].isin(of_protocol["run_id"])]
        if scores.empty:
            continue
        for test_set, of_set in scores.groupby("test_set", sort=False):
            clusters = of_set.drop_duplicates("item").set_index("item")["cluster"]
            for metric in METRICS:
                if metric in of_set and of_set[metric].notna().any():
                    block = Block(str(protocol), str(test_set), metric, {}, {}, {}, clusters, 0, {})
                    _fill(block, of_protocol, of_set)
                    yield block


def _fill(block: Block, runs: pd.DataFrame, scores: pd.DataFrame) -> None:
    """Sort the scores of one protocol and test set into the block; a run without any score of it takes no part."""
    wide = scores.set_index(["run_id", "item"])[block.metric].unstack()
    fresh, old = runs[~runs["stale"]], runs[runs["stale"]]
    # Items that only stale runs judged are not on the list any more; an item missing in one run is missing for all.
    asked = ~_names(scores["unasked"], block.metric)
    listed = scores.loc[asked & scores["run_id"].isin(fresh["run_id"]), "item"].unique()
    complete = wide.loc[wide.index.isin(fresh["run_id"]), listed].dropna(how="all").dropna(axis="columns")
    block.missing = len(listed) - complete.shape[1]

    for run in each(fresh[fresh["role"] == "control"]):
        if run.run_id in complete.index:
            block.controls[run.name] = complete.loc[[run.run_id, run.run_id]].reset_index(drop=True)
    known = block.controls.get(block.baseline)
    # Without that control the floor stands in: a diverged seed must never score better than a finished one.
    stand_in = METRICS[block.metric].floor if known is None else known.iloc[0].to_numpy()
    block.losses |= _by_seed(fresh[fresh["role"] != "control"], complete, stand_in)
    for name, table in _by_seed(old[old["state"] != "diverged"], wide, np.nan).items():
        block.stale[name] = table.dropna(axis="columns")
    for tables in (block.losses, block.stale):
        for name in [name for name, table in tables.items() if table.empty]:
            del tables[name]
    fell = _names(scores["floored"], block.metric)
    counts = fell.groupby(scores["run_id"]).sum()
    for shown, own in runs.groupby("name"):
        block.floored[str(shown)] = int(counts.reindex(own["run_id"]).fillna(0).sum())


def _by_seed(runs: pd.DataFrame, table: pd.DataFrame, stand_in: np.ndarray | float) -> dict[str, pd.DataFrame]:
    """Name -> (seeds x items) scores of its runs; a diverged seed gets `stand_in`. A name without a run to show is left out."""
    runs = runs.sort_values("seed", kind="stable")
    diverged, place = (runs["state"] == "diverged").to_numpy(), table.index.get_indexer(pd.Index(runs["run_id"]))
    scores = np.full((len(runs), table.shape[1]), np.nan)
    scores[place >= 0] = table.to_numpy(dtype=float)[place[place >= 0]]
    scores[diverged] = stand_in
    kept, seeds = diverged | (place >= 0), runs["seed"].astype(int).to_numpy()
    rows: dict[str, list[int]] = {}
    names = runs["name"].astype(str).tolist()
    for row in np.flatnonzero(kept):
        rows.setdefault(names[row], []).append(int(row))
    return {name: pd.DataFrame(scores[own], seeds[own], table.columns) for name, own in rows.items()}


def _names(texts: pd.Series, metric: str) -> pd.Series:
    """Whether a metric is among the names, separated by spaces, of each text; few texts differ."""
    said = {text: metric in text.split() for text in texts.dropna().unique()}
    return texts.map(said).eq(True)
