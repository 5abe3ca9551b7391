"""What the losses cost, alone and in training, on every device where that was measured, and what they bring for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from harness.report import plots, tables
from harness.report.numbers import days
from harness.report.ranking import Analysis
from harness.report.view import View, svg

if TYPE_CHECKING:
    from markupsafe import Markup

    from harness.report.runs import Results

HEADS = (
    ("rank", "place"),
    ("step_ms", "step (ms)"),
    ("step_ratio", "× step of {}"),
    ("updates_per_s", "updates/s"),
    ("audio_s_per_s", "audio s/s"),
    ("loss_ms", "loss alone (ms)"),
    ("loss_ratio", "× {} alone"),
    ("peak_mib", "peak of the loss (MiB)"),
)
FORMS = {
    "rank": ".0f",
    "step_ms": ".1f",
    "updates_per_s": ".1f",
    "audio_s_per_s": ".0f",
    "loss_ms": ".2f",
    "step_ratio": ".2f",
    "loss_ratio": ".2f",
    "peak_mib": ".0f",
}
MEASURE = ["device", "threads", "dtype"]


def is_gpu(device: object) -> bool:
    return any(word in str(device).lower() for word in ("cuda", "gpu", "nvidia"))


def measured(throughput: pd.DataFrame, model: str, reference: str) -> pd.DataFrame:
    """The rows of one model, CPUs before GPUs, the fastest step first, with place (device, threads and type), rank (by the step, 1
    is fastest), step_ratio and loss_ratio (to the reference on the same place, NaN without it).

    Both divide two ratios, each taken in the same seconds, rather than two times of different minutes.
    """
    if throughput.empty:
        return pd.DataFrame(columns=["loss", "place", "rank", "step_ms", "step_ratio", "loss_ratio"])
    own = throughput.reindex(columns=[*throughput.columns.union(["model", "step_ratio"], sort=False)])
    own = own[own["model"].isna() | (own["model"] == model)].copy()
    own["place"] = [_place(*row) for row in own[MEASURE].itertuples(index=False)]
    own["gpu"] = own["device"].map(is_gpu)
    own["rank"] = own.groupby("place")["step_ms"].rank(method="min")
    base = own[own["loss"] == reference].drop_duplicates("place").set_index("place")
    own["step_ratio"] = own["step_ratio"] / own["place"].map(base["step_ratio"])
    alone = own["place"].map(base["ratio_to_mse"])
    own["loss_ratio"] = own["ratio_to_mse"] / (alone.fillna(1.0) if reference == "mse" else alone)
    return own.sort_values(["gpu", "place", "step_ms"], kind="stable", ignore_index=True)


def table(rows: pd.DataFrame, reference: str) -> dict[str, Any]:
    """Devices side by side: places, heads (of each place), rows: (loss, cells of all places as text), the fastest on the first
    place first; gpu: whether any was measured. {} without rows."""
    if rows.empty:
        return {}
    places = list(dict.fromkeys(rows["place"]))
    by = {(row["loss"], row["place"]): row for _, row in rows.iterrows()}
    losses = list(dict.fromkeys(rows["loss"]))
    cells = [[_cell(by.get((loss, place)), key) for place in places for key, _ in HEADS] for loss in losses]
    return {
        "places": places,
        "heads": [head.format(reference or "the reference") for _, head in HEADS],
        "rows": list(zip(losses, cells, strict=True)),
        "gpu": bool(rows["gpu"].any()),
    }


def of_protocol(view: View) -> pd.DataFrame:
    """`measured` for the model and the losses of a page."""
    rows = measured(view.results.throughput, str(view.runs["model"].iloc[0]), view.reference)
    return rows[rows["loss"].isin(view.losses["loss"])].reset_index(drop=True)


def at_home(view: View) -> pd.DataFrame:
    """Those of them that were measured beside the reference where the runs were made, else on the first such place; `name` is
    that which a page shows."""
    rows = of_protocol(view)
    rows = rows[rows["step_ratio"].notna()]
    if len(rows):
        own = rows[rows["device"].isin(view.runs["device"])]
        rows = rows[rows["place"] == (own if len(own) else rows)["place"].iloc[0]]
    return view.losses[["loss", "name"]].drop_duplicates("name").merge(rows, on="loss")


def section(view: View) -> dict[str, Any]:
    """Quality and throughput of every loss, places by both, and a picture of one against the other for each device."""
    rows = of_protocol(view)
    quality = tables.places(view.analysis, view.protocol, view.sets[0]) if view.sets else {}
    return {
        "table": table(rows, view.reference),
        "quality": quality,
        "pictures": _pictures(view, rows),
    }


def models(results: Results, analysis: Analysis, pages: dict[str, tuple[str, str]]) -> list[dict[str, Any]]:
    """The throughput page: for each model its table beside the places by quality. pages: protocol -> (title, address).

    A model may serve several tasks, each with a reference of its own; then the ratios of its table are to mse, which was measured
    beside every loss, and steps have none.
    """
    if results.throughput.empty:
        return []
    names = list(dict.fromkeys(results.throughput["model"].dropna())) if "model" in results.throughput else []
    found = []
    for model in names or [""]:
        own = results.runs[results.runs["model"] == model] if len(results.runs) else results.runs
        references = list(dict.fromkeys(own.loc[own["role"] == "reference", "loss"])) if len(own) else []
        reference = references[0] if len(references) == 1 else "mse"
        made = table(measured(results.throughput, model, reference), reference)
        protocols = list(dict.fromkeys(own["protocol"])) if len(own) else []
        ranked = analysis.ranking
        sets = {p: list(dict.fromkeys(ranked.loc[ranked["protocol"] == p, "test_set"]))[:1] for p in protocols}
        quality = [(*pages[p], tables.places(analysis, p, sets[p][0])) for p in protocols if sets[p]]
        rows = results.throughput[results.throughput["model"] == model] if names else results.throughput
        found.append({"model": model, "table": made, "quality": quality, "made": days(rows["made"])})
    return found


def _pictures(view: View, rows: pd.DataFrame) -> list[tuple[str, Markup]]:
    """One picture for each place where the cost was measured: (place, picture)."""
    if rows.empty or not view.headline or not view.sets:
        return []
    gains, metric = view.analysis.gains, view.headline[0]
    gains = gains[
        (gains["protocol"] == view.protocol) & (gains["test_set"] == view.sets[0]) & (gains["metric"] == metric)
    ]
    pictures = []
    for place, cost in rows.groupby("place", sort=False):
        points = gains.merge(cost, on="loss").dropna(subset=["gain", "step_ms"])
        if len(points) > 1:
            quality = f"{plots.metric_label(metric)}: gain over {view.baseline}"
            pictures.append((str(place), svg(plots.quality_cost(points, quality))))
    return pictures


def _cell(row: pd.Series | None, key: str) -> str:
    if row is None or pd.isna(row[key]):
        return "–"
    return format(float(row[key]), FORMS[key])


def _place(device: object, threads: object, dtype: object) -> str:
    number = pd.to_numeric(pd.Series([threads]), errors="coerce").iloc[0]
    count = "" if np.isnan(number) else f", {int(number)} thread{'s' * (int(number) != 1)}"
    return f"{device}{count}, {dtype}"
