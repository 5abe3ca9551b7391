"""What to know before believing a table: sentences with their numbers, the gravest first."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from harness.errors import UserError
from harness.intervals import FULL_SEEDS
from harness.losses.weightings import get_weighting
from harness.metrics import METRICS
from harness.report import raced
from harness.report.blocks import baseline, each, named, superseded
from harness.report.numbers import listed
from harness.report.overall import OVERALL
from harness.report.ranking import Analysis
from harness.report.reliability import ENOUGH_SEEDS, spread
from harness.report.words import HEADLINE, MOST_NAMED, few_seeds, labels, seeds_of

if TYPE_CHECKING:
    from harness.report.runs import Results
    from harness.report.searched import Found

MOST_FEW = 20  # losses that have fewer seeds than others


def cautions(results: Results, analysis: Analysis, protocol: str) -> list[str]:
    """What else to know: each a sentence with its numbers, the gravest first."""
    runs, rows = named(results.runs), analysis.ranking[analysis.ranking["protocol"] == protocol]
    runs = runs[runs["protocol"] == protocol]
    fresh, said = runs[~runs["stale"]], [results.gates[protocol]] if protocol in results.gates else []
    stand_in = baseline(set(runs["name"])) or "the floor"
    few, all_seeds = few_seeds(results, protocol), seeds_of(fresh)
    if few and len(few) < len(all_seeds):
        counts = sorted(set(few.values()))
        said.append(
            f"Preliminary is what the table says of {listed(list(few), MOST_FEW)}: {listed([str(c) for c in counts])} seeds, where "
            f"the others have {FULL_SEEDS} or more; their intervals are wider, so that less parts them from the others."
        )
    for (name, reason), own in fresh[fresh["state"] == "diverged"].groupby(
        ["name", fresh["reason"].fillna("")], sort=False
    ):
        of = int((fresh["name"] == name).sum())
        why = f" ({reason})" if reason else ""
        said.append(f"{name}: {len(own)} of {of} seeds diverged{why} and score what {stand_in} scores.")
    void = fresh[fresh["void"].astype(float) > 0].groupby("name", sort=False)["void"].max()
    for name, share in void.items():
        said.append(
            f"{name} could say nothing of {100 * share:.2g} % of the training items (ctc: strings that need more frames than "
            f"they have): they count 0 and teach nothing."
        )
    for row in each(analysis.goodhart[analysis.goodhart["protocol"] == protocol]):
        gained, lost = labels(row.gained), labels(row.lost)
        said.append(
            f"{row.loss} beats the reference on what it optimises ({gained}) and loses on {lost} ({row.test_set})."
        )
    judged = rows[(rows["metric"] != OVERALL) & (rows["floored"] > 0)]
    for row in each(judged):
        floor = f"{METRICS[row.metric].floor:g}".replace("-", "−")
        one = row.floored == 1
        said.append(
            f"{row.loss}: {row.floored} {METRICS[row.metric].label} {'score' if one else 'scores'} could not be computed, or "
            f"{'lies' if one else 'lie'} lower, and {'counts' if one else 'count'} as {floor} ({row.test_set})."
        )
    for (test_set, missing), own in rows[rows["missing"] > 0].groupby(["test_set", "missing"], sort=False):
        metrics = listed([METRICS[m].label for m in own["metric"].unique() if m != OVERALL])
        have = "item has" if missing == 1 else "items have"
        said.append(f"{missing} {test_set} {have} no {metrics} score: left out for all losses alike.")
    stale = runs.loc[runs["stale"], "name"].unique().tolist()
    if stale:
        said.append(f"Stale, shown but not ranked (made by an older version): {listed(stale)}. Run the study again.")
    earlier = results.runs[superseded(results.runs) & (results.runs["protocol"] == protocol)]["loss"].unique().tolist()
    if earlier:
        said.append(
            f"Left out: runs of {listed(earlier)} from when the same words stood for other settings, or another file."
        )
    for column, what in (("commit", "commits"), ("device", "devices")):
        values = sorted(fresh[column].dropna().astype(str).unique())
        if len(values) > 1:
            said.append(f"The runs of this table come from {len(values)} {what}: {listed(values)}.")
    reference = fresh[fresh["role"] == "reference"]
    if reference.empty:
        said.append("The reference loss has not been run under this protocol.")
    elif (reference["tuning"] == "shipped").any():
        said.append(f"The reference {reference['name'].iloc[0]} runs at its shipped learning rate: it was not retuned.")
    said += raced.sentences(fresh)
    said += _unreliable(analysis, protocol) if len(raced.raced(fresh)) else []
    said += _tuning_cautions(results.tuning, protocol, spread(results.curves, fresh[fresh["role"] != "control"]))
    said += _search_cautions(results.search, fresh, protocol)
    said += _not_searched(results.search, fresh, protocol)
    read = fresh["studies_read"].max()
    if pd.notna(read):
        nets = int(fresh["losses_read"].max())
        by = f"{int(read)} {'study' if read == 1 else 'studies'} of {nets} {'loss' if nets == 1 else 'losses'}"
        said.append(f"The test list has been read by {by} so far.")
    return said


def _unreliable(analysis: Analysis, protocol: str) -> list[str]:
    """Where a race has left too few seeds to tell whether others would rank alike."""
    tau = analysis.reliability
    tau = tau[
        (tau["protocol"] == protocol) & tau["metric"].isin(HEADLINE) & (tau["separated"] > 0) & (tau["judged"] == 0)
    ]
    where = [f"{METRICS[row.metric].label} ({row.test_set})" for row in each(tau)]
    return (
        [
            f"Whether other seeds would rank alike is unknown on {listed(where, 9)}: of no pair that is apart the race has left "
            f"{ENOUGH_SEEDS} seeds in common."
        ]
        if where
        else []
    )


def _tuning_cautions(tuning: pd.DataFrame, protocol: str, seeds_differ: float) -> list[str]:
    """Rates on the edge of what was tried, rates that are best by less than seeds differ, and rates that another metric would not
    have chosen. seeds_differ: by how much the selection score does (standard deviation)."""
    if tuning.empty:
        return []
    trials, said = tuning[tuning["protocol"] == protocol], []
    chosen = trials[trials["chosen"].fillna(False).astype(bool)]
    edge = chosen.loc[chosen["edge"].fillna(False).astype(bool), "loss"].tolist()
    if edge:
        said.append(f"The best learning rate lies on the edge of what was tried for {listed(edge)}.")
    # Every draw of a search has a rate of its own, and whatever else it sets besides.
    trials = trials[~trials["searched"].astype(bool)] if "searched" in trials else trials
    chosen = trials[trials["chosen"].fillna(False).astype(bool)]
    top = trials.astype({"score": float}).groupby("loss", sort=False)["score"].nlargest(2).groupby(level=0, sort=False)
    close = [str(loss) for loss, two in top if len(two) == 2 and two.max() - two.min() < seeds_differ]
    if close:
        said.append(
            f"The best learning rate beats the next by less than seeds differ (standard deviation {seeds_differ:.3f} of the "
            f"selection score) for {listed(close, MOST_NAMED)}: what the next best rate would have given "
            "may lie outside of the intervals."
        )
    for metric in [m for m in HEADLINE if m in trials]:
        known = trials.dropna(subset=[metric])
        best = known.loc[known.groupby("loss", sort=False)[metric].idxmax()].set_index("loss")["lr"]
        taken = chosen.set_index("loss")["lr"]
        other = [loss for loss in taken.index if loss in best and not np.isclose(best[loss], taken[loss])]
        if other:
            said.append(f"Chosen by {METRICS[metric].label} alone, the learning rate would differ for {listed(other)}.")
    return said


def _search_cautions(found: Found, fresh: pd.DataFrame, protocol: str) -> list[str]:
    """What was chosen at an end of what was searched, and searches of different lengths."""
    names = fresh[["loss", "weighting", "name"]].drop_duplicates().rename(columns={"name": "shown"})
    edges, trials = (
        table[table["protocol"] == protocol].merge(names, on=["loss", "weighting"])
        for table in (found.edges, found.trials)
    )
    said = [
        f"The best {what} lies at an end of what was searched for {listed(own['shown'].tolist())}."
        for what, own in edges.groupby("name", sort=False)
    ]
    counts = trials.groupby("shown", sort=False)["trial"].nunique()
    if counts.nunique() > 1:
        groups = [f"{count} for {listed(own.index.tolist())}" for count, own in counts.groupby(counts)]
        said.append(f"Not all were searched by as many trials: {'; '.join(groups)}.")
    return said


def _not_searched(found: Found, fresh: pd.DataFrame, protocol: str) -> list[str]:
    """Settings of weightings that a search could have set and none did: they ran at their defaults."""
    searched = found.trials[found.trials["protocol"] == protocol]
    told: dict[str, None] = {}
    for row in each(fresh[["loss", "weighting"]].drop_duplicates()):
        try:
            chosen = get_weighting(row.weighting)
        except UserError:  # of a file of a user's own that is not loaded here
            continue
        own = searched[(searched["loss"] == row.loss) & (searched["weighting"] == row.weighting)]["name"]
        open_ = [n for n, s in chosen.info.settings.items() if s.range and chosen.settings[n] == s.default]
        told |= {f"{n} of {chosen.name}": None for n in open_ if f"weighting.{n}" not in set(own)}
    return [f"Not searched, but left as shipped: {listed(list(told), 9)}."] if told else []
