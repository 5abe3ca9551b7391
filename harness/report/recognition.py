"""What the page says of a task that recognises, beside its rankings: metrics of whole sets, noise, confusions, confidence and
embeddings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from harness import losses
from harness.errors import UserError
from harness.report import class_plots, classes, plots
from harness.report.blocks import Block, each, levels, named
from harness.report.drawing import HIGHLIGHTS
from harness.report.ranking import Analysis
from harness.tasks.fields import available

if TYPE_CHECKING:
    from harness.report.runs import Results

SHOWN = "matched"  # the set that is looked at closely
OF_SETS = {  # metric -> column head, and what it is
    "macro_f1": ("macro F1", "Macro F1: the mean over the classes of the harmonic mean of precision and recall."),
    "recall": (
        "macro recall",
        "Macro recall: the mean over the classes of the share of a class’s items that are right.",
    ),
    "minority_recall": (
        "minority recall",
        "Minority recall: the same over the quarter of the classes that training hears least.",
    ),
    "calibration_error": (
        "calibration error ↓",
        "Calibration error (Guo et al. 2017): how far confidence, the softmax of the highest logit whatever the loss trained, "
        "lies from the share that is right, mean over 15 bins weighted by their items; lower is better.",
    ),
    "equal_error_rate": (
        "equal error rate ↓",
        "Equal error rate: items are verified in pairs, half of them of one class, by the cosine of their embeddings; the share "
        "that is wrong at the threshold where both kinds of pair are as often wrong. A pair is never of one voice where words "
        "are told apart, nor of one prompt where voices are. 0.5 is chance; lower is better.",
    ),
    "open_set_auroc": (
        "AUROC of the open set",
        "AUROC of the open set: how likely a word that is a class gets a higher confidence than one that no training held. 0.5 is "
        "chance.",
    ),
    "open_set_centroid_auroc": (
        "AUROC by centroid",
        "AUROC by centroid: the same by how near the nearest class centroid is.",
    ),
    "mean_average_precision": (
        "mean average precision",
        "Mean average precision: the mean over the words of how well the items that hold a word are ranked before the others.",
    ),
    "count_error": (
        "count error ↓",
        "Count error: the mean distance of the expected count, in words; lower is better.",
    ),
}


def of_set(results: Results, protocol: str, test_set: str, order: list[str]) -> dict[str, Any]:
    """Metrics that only a whole set has: heads [(metric, head)], rows [(loss, kind ("loss", "stale" or "control"), cells)],
    about: what the metrics are. A cell is "0.812 ± 0.013" (mean and standard deviation over the seeds that finished), "–" where
    there is none. Empty where nothing was measured."""
    runs = named(results.runs)
    runs = runs[runs["protocol"] == protocol]
    whole = results.summaries[results.summaries["test_set"] == test_set]
    own = pd.concat([whole[["run_id", "metric", "value"]], _recalls(results, runs, protocol, test_set)])
    own = own.merge(runs[["run_id", "name"]].rename(columns={"name": "loss"}), on="run_id")
    if own.empty:
        return {}
    table = {(row.loss, row.metric): _cell(row.mean, row.std) for row in each(classes.over_seeds(own))}
    shown = [m for m in OF_SETS if m in set(own["metric"])]
    shown += [m for m in dict.fromkeys(own["metric"]) if m not in OF_SETS]
    kinds = runs.groupby("name").agg({"role": "first", "stale": "all"})
    rows = [
        (
            loss,
            "control" if kinds["role"][loss] == "control" else "stale" if kinds["stale"][loss] else "loss",
            [table.get((loss, m), "–") for m in shown],
        )
        for loss in order
        if loss in set(own["loss"])
    ]
    heads = [(m, OF_SETS[m][0] if m in OF_SETS else m.replace("_", " ")) for m in shown]
    return {"heads": heads, "rows": rows, "about": [OF_SETS[m][1] for m in shown if m in OF_SETS]}


def pictures(results: Results, analysis: Analysis, protocol: str, order: list[str]) -> dict[str, bytes]:
    """SVGs by name: snr, confusion, calibration, embeddings; those only that there is something to show in."""
    drawn = {
        "snr": _snr(results, analysis, protocol, order),
        "confusion": _confusion(results, analysis, protocol),
        "calibration": _calibration(results, analysis, protocol),
        "embeddings": _embeddings(results, analysis, protocol),
    }
    return {name: picture for name, picture in drawn.items() if picture is not None}


def best(analysis: Analysis, protocol: str, metric: str) -> list[str]:
    """The ranked losses of the matched set, the best mean of the metric first."""
    rows = analysis.ranking
    rows = rows[(rows["protocol"] == protocol) & (rows["test_set"] == SHOWN) & (rows["metric"] == metric)]
    return rows[rows["rank"].notna()].sort_values("mean", ascending=False, kind="stable")["loss"].tolist()


def by_snr(block: Block, snr: pd.Series) -> pd.DataFrame:
    """Mean over seeds and items of each loss at each input SNR, as the curves of a picture: loss, metric, step (dB), value.
    snr: of each item, by its name."""
    items = levels(snr.reindex(block.clusters.index))
    parts = [
        table.mean(axis=0)
        .groupby(items.reindex(table.columns))
        .mean()
        .rename("value")
        .rename_axis("step")
        .reset_index()
        for table in block.losses.values()
    ]
    return pd.concat(
        [part.assign(loss=loss, metric=block.metric) for loss, part in zip(block.losses, parts, strict=True)],
        ignore_index=True,
    )


def answers(results: Results, protocol: str, test_set: str) -> pd.DataFrame:
    """Scores of classifiers with the name of the loss: run_id, name, item, label, said, confidence, of the runs that answered with
    classes. An item's label is that which any run noted: where an output is not finite, nothing is."""
    if "said" not in results.scores:
        return pd.DataFrame(columns=["run_id", "name", "item", "label", "said", "confidence"])
    runs = named(results.runs)
    runs = runs.loc[(runs["protocol"] == protocol) & ~runs["stale"], ["run_id", "name"]]
    own = results.scores[results.scores["test_set"] == test_set].merge(runs, on="run_id")
    own = own.assign(label=own.groupby("item")["label"].transform("max"))
    answered = own.groupby("run_id")["said"].transform("count") > 0
    return own.loc[answered & (own["label"] >= 0), ["run_id", "name", "item", "label", "said", "confidence"]]


def class_names(results: Results, protocol: str, count: int) -> list[str]:
    """Names of `count` classes; their numbers where no run told the names."""
    known = results.classes.get(protocol, ())
    return list(known) if len(known) >= count else [str(k) for k in range(count)]


def _recalls(results: Results, runs: pd.DataFrame, protocol: str, test_set: str) -> pd.DataFrame:
    own = answers(results, protocol, test_set)
    imbalance, count = results.imbalance.get(protocol, 1.0), _count(results, own, protocol)
    found = {run: classes.recall(table, count, imbalance) for run, table in own.groupby("run_id")}
    metric = "minority_recall" if imbalance > 1 else "recall"
    return pd.DataFrame([(run, metric, value) for run, value in found.items()], columns=["run_id", "metric", "value"])


def _count(results: Results, own: pd.DataFrame, protocol: str) -> int:
    seen = int(own[["label", "said"]].max().max()) + 1 if len(own) else 0
    return max(seen, len(results.classes.get(protocol, ())))


def _cell(mean: float, std: float) -> str:
    return f"{mean:.3f}" + ("" if pd.isna(std) else f" ± {std:.3f}")


def _reference(results: Results, protocol: str) -> list[str]:
    runs = named(results.runs)
    own = runs[(runs["protocol"] == protocol) & (runs["role"] == "reference") & ~runs["stale"]]
    return list(dict.fromkeys(own["name"]))


def _snr(results: Results, analysis: Analysis, protocol: str, order: list[str]) -> bytes | None:
    own = results.scores[
        results.scores["run_id"].isin(results.runs.loc[results.runs["protocol"] == protocol, "run_id"])
    ]
    mine = [b for b in analysis.blocks if (b.protocol, b.test_set) == (protocol, SHOWN) and b.losses]
    if own.empty or not mine:
        return None
    snr = own.drop_duplicates("item").set_index("item")["input_snr"]
    curves = pd.concat([by_snr(block, snr) for block in mine])
    if curves["step"].nunique() < 2:
        return None
    reference = _reference(results, protocol)
    first = [name for name in order if name in set(curves["loss"]) and name not in reference]
    return plots.convergence(curves, first[: len(HIGHLIGHTS) - len(reference)] + reference, "input SNR (dB)")


def _confusion(results: Results, analysis: Analysis, protocol: str) -> bytes | None:
    own = answers(results, protocol, SHOWN)
    shown = _few(best(analysis, protocol, "accuracy")[:1] + _reference(results, protocol), own["name"])
    count = _count(results, own, protocol)
    matrices = {name: classes.confusion(own[own["name"] == name], count) for name in shown}
    return class_plots.confusion(matrices, class_names(results, protocol, count)) if matrices else None


def _calibration(results: Results, analysis: Analysis, protocol: str) -> bytes | None:
    own = answers(results, protocol, SHOWN).dropna(subset=["said", "confidence"])
    reference = _reference(results, protocol)
    others = [name for name in best(analysis, protocol, "accuracy") if name not in reference]
    shown = _few(others[: len(HIGHLIGHTS) - len(reference)] + reference, own["name"])
    of = {name: own[own["name"] == name] for name in shown}
    tables = {name: classes.calibration(t["confidence"], t["said"] == t["label"]) for name, t in of.items()}
    return class_plots.calibration(tables) if tables else None


def _embeddings(results: Results, analysis: Analysis, protocol: str) -> bytes | None:
    """The best loss by each way to answer, the reference, and the best of those that are trained on embeddings."""
    runs = named(results.runs)
    kept = results.embeddings.merge(
        runs.loc[(runs["protocol"] == protocol) & ~runs["stale"], ["run_id", "name"]], on="run_id"
    )
    labels = answers(results, protocol, SHOWN).drop_duplicates("item").set_index("item")["label"]
    near, logits = (best(analysis, protocol, metric) for metric in ("centroid_accuracy", "accuracy"))
    trained = [name for name in near if _on_embeddings(name)]
    wanted = [*near[:1], *logits[:1], *_reference(results, protocol), *trained[:1]]
    vectors = {}
    for name in _few(wanted, kept["name"]):
        path = Path(kept.loc[kept["name"] == name, "path"].iloc[0])
        if path.is_file():
            with np.load(path) as file:
                item, embedded = file["item"], file["embedding"].astype(float)
            label = labels.reindex(item).to_numpy()
            known = np.isfinite(label) & np.isfinite(embedded).all(axis=-1)
            if known.any():
                vectors[name] = (embedded[known], label[known].astype(int))
    if not vectors:
        return None
    count = max(int(label.max(initial=0)) for _, label in vectors.values()) + 1
    return class_plots.embeddings(vectors, class_names(results, protocol, count))


def _few(wanted: list[str], known: pd.Series) -> list[str]:
    return [name for name in dict.fromkeys(wanted) if name in set(known)]


def _on_embeddings(expression: str) -> bool:
    """Whether a loss trains embeddings and no logits. A loss that this harness does not know is not said to."""
    try:
        fields = set(losses.parse(expression).fields)
    except UserError:
        return False
    return not fields <= available({"logits", "label"}) and fields <= available({"embedding", "label"})
