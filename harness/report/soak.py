"""Does every loss train? Each must improve on the mixture where it promises to, for certain over the items."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from harness.intervals import interval, two_way
from harness.metrics import METRICS
from harness.report.blocks import blocks, named
from harness.report.numbers import number, span

if TYPE_CHECKING:
    from harness.report.runs import Results

FALLBACK = "si_sdr"  # what a loss without a target metric is held to


def verdicts(results: Results, protocol: str, test_set: str = "matched") -> list[dict]:
    """One dict for each loss and each metric that it targets (FALLBACK where it targets none): loss, metric, gain, low, high,
    improves.

    gain: mean over seeds and items of the paired difference to the unprocessed mixture; low, high: its 95 % interval over
    prompts, the seeds taken as they are, so that one will do. improves: whether low is above 0.
    """
    runs = named(results.runs)
    fresh = runs[(runs["protocol"] == protocol) & ~runs["stale"]]
    targets = {str(row["name"]): tuple(row["targets"]) or (FALLBACK,) for _, row in fresh.iterrows()}
    found = []
    for block in blocks(results):
        if (block.protocol, block.test_set) != (protocol, test_set):
            continue
        for name, table in block.losses.items():
            if block.metric not in targets[name]:
                continue
            gain = block.difference(name, block.baseline).mean(axis=0)
            # Two equal rows: an interval over prompts alone (see `two_way`).
            estimate = two_way(np.stack([gain, gain]), block.clusters.reindex(table.columns).to_numpy())
            low, high = (float(end) for end in interval(estimate))
            row = {"loss": name, "metric": block.metric, "gain": float(estimate.mean), "low": low, "high": high}
            found.append(row | {"improves": low > 0})
    return sorted(found, key=lambda row: (row["improves"], row["loss"], row["metric"]))


def as_text(row: dict) -> tuple[str, str, str, str, str]:
    """A verdict for people: loss, metric, gain, interval, improves."""
    metric = row["metric"]
    interval_ = span(metric, row["low"], row["high"], True)
    verdict = "yes" if row["improves"] else "NO"
    return row["loss"], METRICS[metric].label, number(metric, row["gain"], True), interval_, verdict
