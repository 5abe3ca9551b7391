"""The result in words: which loss is best, what ties with it, and what to know before believing it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from harness.data import corpora
from harness.errors import UserError
from harness.intervals import FULL_SEEDS
from harness.metrics import ANSWERS, METRICS
from harness.report import raced
from harness.report.blocks import each, named
from harness.report.numbers import listed, number, span
from harness.report.overall import OVERALL
from harness.report.ranking import Analysis
from harness.report.reliability import ENOUGH
from harness.tasks import TASKS

if TYPE_CHECKING:
    from harness.report.runs import Results

HEADLINE = ("si_sdr_improvement", "pesq_wb", "estoi", "si_sdr", "dnsmos_ovrl", *ANSWERS)
MOST_NAMED = 6  # voices, kinds of noise or losses in a sentence
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


def made_of(results: Results, protocol: str, test_set: str) -> str:
    """Whose voices and which noise a judged set is made of: "Voices: a and b; noise: c, d and 2 more."; "" if neither is known."""
    runs = set(results.runs.loc[results.runs["protocol"] == protocol, "run_id"])
    own = results.scores[(results.scores["test_set"] == test_set) & results.scores["run_id"].isin(runs)]
    found = [
        f"{what}: {listed(sorted(own[column].dropna().astype(str).unique()), MOST_NAMED)}"
        for what, column in (("voices", "speaker"), ("noise", "noise"))
        if column in own and own[column].notna().any()
    ]
    return f"{'; '.join(found).capitalize()}." if found else ""


def rules(task: str, baseline: str) -> str:
    """How losses are compared, in words: what is random, what is a tie, and what becomes of what could not be judged."""
    controls = TASKS[task].explained if task in TASKS else ""
    return (
        f"Seeds and items are both random: intervals come from a two-way analysis of variance over seeds and {clusters(task)} "
        "with Satterthwaite’s t. Losses are compared by paired differences only, on the same seeds and the same items; two are "
        "tied when the Holm-adjusted 95 % interval of their difference contains 0. The rank of a loss is 1 plus the number of "
        "losses better for certain. An output that makes a metric fail gets that metric’s floor; a seed that diverged scores what "
        f"{baseline} scores; an item without a valid reference is left out for all. Every loss gets the same number of updates, "
        "and its own learning rate unless marked. Mismatched items have noise, and where there is one a voice, that training never "
        f"hears. {controls}"
    ).rstrip()


def remark(task: str, test_set: str) -> str:
    """What is to be known of a judged set that is no usual test; "" where there is nothing."""
    return TASKS[task].remarks.get(test_set, "") if task in TASKS else ""


def answers(analysis: Analysis, protocol: str, test_set: str) -> list[dict]:
    """One entry a headline metric: label, loss, value, gain, interval, tied (text), names (of the tied), unbeaten (names), alone,
    target, sure (bool or None), worse (bool).

    sure: is the gain over the baseline above 0 for certain; None when that is not known. worse: it is below 0 for certain.
    unbeaten: the losses that none beats for certain; a loss that ties with the best mean may still be beaten by another. The last
    entry may be the overall rank: label "overall", losses (those of the best mean rank), value, referees (labels), all (whether
    every loss has it).
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
        entry |= {"gain": "", "interval": "", "sure": None, "worse": False}
        entry["unbeaten"] = table.loc[table["rank"] == 1, "loss"].tolist()
        own = gains[(gains["metric"] == metric) & (gains["loss"] == best["loss"])]
        for gain in each(own):
            entry |= {"gain": number(metric, gain.gain, True), "interval": span(metric, gain.low, gain.high, True)}
            entry["sure"] = None if pd.isna(gain.low) else bool(gain.low > 0)
            entry["worse"] = bool(gain.high < 0)
        found.append(entry)
    overall = rows[rows["metric"] == OVERALL]
    if len(overall) > 1:
        first = overall[overall["rank"] == 1]
        judges = [METRICS[m].label for m in analysis.referees[protocol, test_set]]
        found.append(
            {"label": OVERALL, "losses": listed(first["loss"].tolist()), "value": f"{first['mean'].iloc[0]:.1f}"}
            | {"referees": listed(judges, 9), "all": len(first) == len(overall)}
        )
    return found


def labels(metrics: str) -> str:
    """ "PESQ-WB and STOI" of "pesq_wb stoi"."""
    return listed([METRICS[metric].label for metric in metrics.split()])


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
    """Why the ranking of this protocol is preliminary; empty when it is not. Where some losses have all the seeds that a full study
    has, those with fewer are so alone: see `few_seeds`."""
    runs = _fresh(results, protocol)
    reasons = []
    if runs["preliminary"].fillna(False).astype(bool).any():
        reasons.append("quick form: fewer test items than a full study")
    seeds, few = seeds_of(runs), few_seeds(results, protocol)
    if len(few) and len(few) == len(seeds):
        least = int(seeds.min())
        reasons.append(f"{least} seed{'s' * (least > 1)}; a full study has {FULL_SEEDS}")
    if len(few) and len(few) == len(seeds) and seeds.min() < 2:
        reasons.append("one seed gives no interval: nothing can be told apart")
    tau = analysis.reliability
    tau = tau[(tau["protocol"] == protocol) & tau["metric"].isin(HEADLINE) & (tau["tau"] < ENOUGH)]
    for row in each(tau):
        label = METRICS[row.metric].label
        reasons.append(
            f"rankings from halves of the seeds agree only to tau-b {row.tau:.2f} on {label} ({row.test_set})"
        )
    return reasons


def few_seeds(results: Results, protocol: str) -> dict[str, int]:
    """The losses with fewer seeds than a full study has, and how many they have."""
    seeds = seeds_of(_fresh(results, protocol))
    return {str(name): int(count) for name, count in seeds[seeds < FULL_SEEDS].items()}


def seeds_of(runs: pd.DataFrame) -> pd.Series:
    trained = runs[runs["role"] != "control"]
    seeds = trained.groupby("name")["seed"].nunique()
    seeds.update(raced.raced(trained)["of"])  # of those seeds a race has saved what would have told nothing
    return seeds


def _fresh(results: Results, protocol: str) -> pd.DataFrame:
    runs = named(results.runs)
    return runs[(runs["protocol"] == protocol) & ~runs["stale"]]
