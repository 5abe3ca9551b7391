"""Claims on classifiers, and on what losses cost."""

from __future__ import annotations

import numpy as np
import pandas as pd

from harness.intervals import Estimate, interval
from harness.report import cost
from harness.report.claims.claim import FAILS, HOLDS, TOLD, UNSURE, Part, within
from harness.report.claims.evidence import TEST_SET, Evidence

POINT = 0.01  # of accuracy
SLACK = 1.3  # between two measurements of one cost
# Times of mse, forward and backward on one CPU thread: the fastest implementation that was found of each; of sa_sdr in the form
# that a denoiser is trained and measured with, {speech, noise} (2.6 ms where mse takes 0.36).
PUBLISHED = {
    "l1": 1.2, "l2": 1.2, "rmse": 1.2, "smooth_l1": 1.0, "huber": 1.0, "log_mse": 1.8, "snr": 1.1, "si_sdr": 3.3, "sa_sdr": 7.2,
    "wsdr": 5.0, "ci_sdr": 150.0, "stoi": 160.0, "estoi": 190.0, "pmsqe": 53.0, "deep_feature": 360.0, "multi_res_stft": 740.0,
}  # fmt: skip


def focal_as_cross_entropy(e: Evidence) -> list[Part]:
    """C13."""
    metric = "accuracy"
    names = e.judged(metric, e.names("focal", "cross_entropy"))
    if len(names) < 2 or e.view.results.imbalance.get(e.view.protocol, 1.0) > 1:
        return []
    pair = (names[0], names[1])
    clean, noisiest = _by_noise(e)
    (d,) = e.compare(metric, [pair], clean)
    found = FAILS if d.low > POINT else HOLDS if within(d.low, d.high, POINT) == HOLDS else UNSURE
    parts = [Part(f"{d.a} − {d.b}, the cleanest {clean.sum()} items", found, metric, d.mean, d.low, d.high, d.seeds)]
    if (noisiest != clean).any():
        (d,) = e.compare(metric, [pair], noisiest)
        parts.append(
            Part(f"{d.a} − {d.b}, the noisiest {noisiest.sum()} items", TOLD, metric, d.mean, d.low, d.high, d.seeds)
        )
    return [*parts, *_of_open_set(e, pair)]


def _by_noise(e: Evidence) -> tuple[np.ndarray, np.ndarray]:
    """Which items have the highest input SNR, and which the lowest; all where there is none."""
    scores, block = e.view.results.scores, e.blocks["accuracy"]
    own = scores[scores["run_id"].isin(e.view.runs["run_id"]) & (scores["test_set"] == TEST_SET)]
    snr = own.drop_duplicates("item").set_index("item")["input_snr"].astype(float)
    of_items = snr.reindex(next(iter(block.losses.values())).columns).to_numpy()
    if np.isnan(of_items).all():
        everything = np.ones(len(of_items), dtype=bool)
        return everything, everything
    return of_items == np.nanmax(of_items), of_items == np.nanmin(of_items)


def _of_open_set(e: Evidence, pair: tuple[str, str]) -> list[Part]:
    """Difference of a score of whole sets, paired by seed alone."""
    metric, whole = "open_set_auroc", e.view.results.summaries
    named = whole[whole["metric"] == metric].merge(e.view.losses[["run_id", "name", "seed"]], on="run_id")
    by = named.groupby(["seed", "name"])["value"].mean().unstack()
    if not set(pair) <= set(by.columns) or by[list(pair)].dropna().empty:
        return []
    values = (by[pair[0]] - by[pair[1]]).dropna().to_numpy(dtype=float)
    count = len(values)
    se = values.std(ddof=1) / np.sqrt(count) if count > 1 else np.nan
    low, high = interval(Estimate(values.mean(), np.asarray(se), np.asarray(max(count - 1, 1))))
    return [
        Part(
            f"{pair[0]} − {pair[1]}, AUROC of unknown words",
            TOLD,
            "ratio",
            values.mean(),
            float(low),
            float(high),
            count,
        )
    ]


def costs_as_published(e: Evidence) -> list[Part]:
    """C14. Ends of an interval: from the quartiles of the loss's own times."""
    rows = cost.of_protocol(e.view)
    rows = rows[rows["loss"].isin(PUBLISHED)]
    if rows.empty or rows["gpu"].all():
        return []
    rows = (
        rows[~rows["gpu"].astype(bool)]
        .dropna(subset=["ratio_to_mse"])
        .sort_values("threads", key=pd.to_numeric, kind="stable")
    )
    rows = rows[rows["place"] == rows["place"].iloc[0]]
    alone = pd.to_numeric(rows["threads"]).eq(1).all()
    times = rows["ratio_to_mse"].astype(float) / rows["loss"].map(PUBLISHED)
    spread = (rows["loss_ms_iqr"].astype(float) / rows["loss_ms"].astype(float)).fillna(0.0) / 2
    low, high = times * (1 - spread), times * (1 + spread)
    k = times.idxmax()
    slower = [str(name) for name in rows.loc[low > SLACK, "loss"]]
    found = UNSURE if not alone else FAILS if slower else HOLDS if bool((high <= SLACK).all()) else UNSURE
    more = f"; beyond {SLACK:g}: {', '.join(slower)}" if slower else ""
    steps = rows["step_ratio"].astype(float)
    dear = f"{rows.loc[steps.idxmax(), 'loss']}, the largest" if steps.notna().any() else "not measured"
    return [
        Part(
            f"alone ({rows['place'].iloc[0]}), in mse, over the published, {rows.loc[k, 'loss']} the largest of {len(rows)}{more}",
            found, "ratio", float(times[k]), float(low[k]), float(high[k]),
        ),
        Part(f"in training, step over that of {e.view.reference}, {dear}", TOLD, "ratio", float(steps.max())),
    ]  # fmt: skip
