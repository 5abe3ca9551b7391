"""Read finished runs from MLflow into tables; no other module of the report knows where results come from."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd


@dataclass
class Results:
    """Everything a report is made from.

    runs: one row per selected test run (confirm runs and controls). Columns: run_id, task, corpus, model, protocol (hash),
        loss (as shown), weighting, role ("loss", "reference", "control"), tuning ("tuned", "shipped" or ""),
        seed (Int64, NA for controls), state ("finished", "diverged"), reason (why it diverged), stale (bool: made by an older
        version of the loss or of the harness), device, commit, updates, lr, params, targets (tuple of metric names the
        loss optimises directly), studies_read (how many studies have read the test list), preliminary (bool: quick item counts).
    scores: one row per run x test item. Columns: run_id, test_set ("matched", "mismatched"), item, cluster (prompt name),
        input_snr (dB), noise, speaker, one float column per metric of `harness.metrics.METRICS` that was measured (NaN = missing
        because of the reference), floored (names of the metrics that fell back to their floor, separated by spaces).
        Diverged runs have no rows.
    curves: run_id, metric, step (update), seconds (training seconds so far), value. Validation metrics over training.
    tuning: one row per tuning trial. Columns: protocol, loss, lr, score (selection score, NaN if diverged), state, chosen (bool),
        edge (bool: the chosen rate lies on the edge of what was tried), and the validation mean of each metric.
    throughput: loss, device, threads, dtype, loss_ms, loss_ms_iqr, ratio_to_mse, step_ms, updates_per_s, audio_s_per_s, peak_mib.
    audio: run_id, item, kind ("noisy", "clean", "estimate"), path (local wav file), for three fixed items per run.
    notes: sentences to print on the page (attribution of the corpora, flaws of the recordings).
    """

    runs: pd.DataFrame
    scores: pd.DataFrame
    curves: pd.DataFrame
    tuning: pd.DataFrame
    throughput: pd.DataFrame
    audio: pd.DataFrame
    notes: list[str]
