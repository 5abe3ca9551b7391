"""The result in words: which loss is best, what ties with it, and what to know before believing it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from harness.data import corpora
from harness.errors import UserError
from harness.metrics import ANSWERS, METRICS
from harness.report import raced
from harness.report.blocks import baseline, each, named, superseded
from harness.report.numbers import listed, number, span
from harness.report.overall import OVERALL
from harness.report.ranking import Analysis
from harness.report.reliability import ENOUGH, ENOUGH_SEEDS
from harness.tasks import TASKS

if TYPE_CHECKING:
    from harness.report.runs import Results
    from harness.report.searched import Found

HEADLINE = ("si_sdr_improvement", "pesq_wb", "estoi", "si_sdr", "dnsmos_ovrl", *ANSWERS)
FULL_SEEDS = 5
MEASURED = {
    "pesq_wb": "PESQ-WB is ITU-T P.862.2 (wide band), computed by the package pesq; ITU has superseded P.862 by P.863.",
    "pesq_nb": "PESQ-NB is ITU-T P.862 with the mapping of P.862.1, computed by the package pesq.",
    "stoi": "STOI (Taal et al. 2011) is computed by the package pystoi.",
    "estoi": "ESTOI (Jensen and Taal 2016) is computed by the package pystoi.",
    "si_sdr": "SI-SDR follows Le Roux et al. 2019: means removed, the scale of the estimate projected out.",
    "snr": "SNR is that of the estimate as it is, gain error included; its distance to SI-SDR is that gain error.",
    "si_sdr_improvement": "SI-SDR improvement: by how much SI-SDR is above the mixture’s, the mean over the talkers in the order "
    "of the outputs that suits them best; of items in which both talk.",
    "attenuation": "Attenuation: by how much items of noise alone became quieter; no other metric can judge them. Where "
    "talkers are separated: by how much the output of one who is silent is below the mixture.",
    "accuracy": "Accuracy: the share of items whose highest logit is that of their class.",
    "centroid_accuracy": "Centroid accuracy: the class whose mean embedding over training items is nearest, all of norm 1.",
    "average_precision": "Average precision is that of each item’s own ranking of the words.",
    "token_accuracy": "Token accuracy: 1 less the edit distance as a share of the string, at least 0; greedy decoding.",
    "count_accuracy": "Count accuracy: how often the nearest whole number is right.",
    "iou": "IoU: what the found stretch shares with the word, over both together.",
    "dnsmos_ovrl": "DNSMOS is the P.835 model of Reddy et al. 2022: it hears the estimate alone.",
}


def synthetic(corpus: str) -> bool:
    """Whether a corpus is no recording of people; False for one that has no card here."""
    try:
        return corpora.card(corpus).synthetic
    except UserError:
        return False


def clusters(task: str, test_set: str = "matched") -> str:
    """What the items of a set share that makes them alike: who says a word, or which prompt is said."""
    synthesised = task in TASKS and TASKS[task].kind == "words" and test_set != "real_words"
    return "voices" if synthesised else "prompts"


def remark(task: str, test_set: str) -> str:
    """What is to be known of a judged set that is no usual test; "" where there is nothing."""
    return TASKS[task].remarks.get(test_set, "") if task in TASKS else ""


def answers(analysis: Analysis, protocol: str, test_set: str) -> list[dict]:
    """One entry a headline metric: label, loss, value, gain, interval, tied (text), names (of the tied), alone, target, sure (bool
    or None).

    sure: is the gain over the baseline above 0 for certain; None when that is not known. The last entry may be the
    overall
    rank: label "overall", losses (those of the best mean rank), value, referees (labels).
    """
    rows = analysis.ranking
    rows = rows[(rows["protocol"] == protocol) & (rows["test_set"] == test_set) & rows["rank"].notna()]
    gains = analysis.gains[(analysis.gains["protocol"] == protocol) & (analysis.gains["test_set"] == test_set)]
    found: list[dict] = []
    for metric in HEADLINE:
        table = rows[rows["metric"] == metric]
        if table.empty:
            continue
        best = table.iloc[0]  # the table is in the order of the means
        tied = [r["loss"] for _, r in table.iloc[1:].iterrows() if set(r["tie_group"]) & set(best["tie_group"])]
        entry = {"label": METRICS[metric].label, "loss": best["loss"], "value": number(metric, best["mean"])}
        entry |= {"tied": listed(tied), "names": tied, "alone": len(table) == 1, "target": bool(best["target"])}
        entry |= {"gain": "", "interval": "", "sure": None}
        own = gains[(gains["metric"] == metric) & (gains["loss"] == best["loss"])]
        for gain in each(own):
            entry |= {"gain": number(metric, gain.gain, True), "interval": span(metric, gain.low, gain.high, True)}
            entry["sure"] = None if pd.isna(gain.low) else bool(gain.low > 0)
        found.append(entry)
    overall = rows[rows["metric"] == OVERALL]
    if len(overall) > 1:
        first = overall[overall["rank"] == 1]
        judges = [METRICS[m].label for m in analysis.referees[protocol, test_set]]
        found.append(
            {"label": OVERALL, "losses": listed(first["loss"].tolist()), "value": f"{first['mean'].iloc[0]:.1f}"}
            | {"referees": listed(judges, 9)}
        )
    return found


def noise(analysis: Analysis, protocol: str, test_set: str) -> str:
    """The noise floor of a ranking in a sentence: the largest differences between losses that must tie; "" without any."""
    table = analysis.identities
    table = table[(table["protocol"] == protocol) & (table["test_set"] == test_set)]
    shown = [metric for metric in HEADLINE if metric in set(table["metric"])]
    if not shown:
        return ""
    largest = {metric: table.loc[table["metric"] == metric, "diff"].abs().max() for metric in shown}
    said = ", ".join(f"{METRICS[metric].label} {number(metric, largest[metric])}" for metric in shown)
    apart = table.loc[table["ties"] == "no", "losses"].unique().tolist()
    verdict = "all tie" if (table["ties"] == "yes").all() else "no interval tells whether they tie"
    if apart:
        verdict = f"{'; '.join(apart)} do not tie: something that should be equal for all losses is not"
    return f"Losses that must tie ({'; '.join(table['losses'].unique())}) differ by at most {said}; {verdict}."


def preliminary(results: Results, analysis: Analysis, protocol: str) -> list[str]:
    """Why the ranking of this protocol is preliminary; empty when it is not."""
    runs = _fresh(results, protocol)
    trained = runs[runs["role"] != "control"]
    reasons = []
    if runs["preliminary"].fillna(False).astype(bool).any():
        reasons.append("quick form: fewer test items than a full study")
    seeds = trained.groupby("name")["seed"].nunique()
    seeds.update(raced.raced(trained)["of"])  # of those seeds a race has saved what would have told nothing
    if len(seeds) and seeds.min() < FULL_SEEDS:
        few = int(seeds.min())
        reasons.append(f"{few} seed{'s' * (few > 1)}; a full study has {FULL_SEEDS}")
    if len(seeds) and seeds.min() < 2:
        reasons.append("one seed gives no interval: nothing can be told apart")
    tau = analysis.reliability
    tau = tau[(tau["protocol"] == protocol) & tau["metric"].isin(HEADLINE) & (tau["tau"] < ENOUGH)]
    for row in each(tau):
        label = METRICS[row.metric].label
        reasons.append(
            f"rankings from halves of the seeds agree only to tau-b {row.tau:.2f} on {label} ({row.test_set})"
        )
    return reasons


def cautions(results: Results, analysis: Analysis, protocol: str) -> list[str]:
    """What else to know: each a sentence with its numbers, the gravest first."""
    runs, rows = named(results.runs), analysis.ranking[analysis.ranking["protocol"] == protocol]
    runs = runs[runs["protocol"] == protocol]
    fresh, said = runs[~runs["stale"]], [results.gates[protocol]] if protocol in results.gates else []
    stand_in = baseline(set(runs["name"])) or "the floor"
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
        gained, lost = (listed([METRICS[m].label for m in text.split()]) for text in (row.gained, row.lost))
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
    said += _tuning_cautions(results.tuning, protocol)
    said += _search_cautions(results.search, fresh, protocol)
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


def _tuning_cautions(tuning: pd.DataFrame, protocol: str) -> list[str]:
    """Rates on the edge of what was tried, and rates that another metric would not have chosen."""
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


def _fresh(results: Results, protocol: str) -> pd.DataFrame:
    runs = named(results.runs)
    return runs[(runs["protocol"] == protocol) & ~runs["stale"]]
