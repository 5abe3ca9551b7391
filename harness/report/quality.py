"""The selection score of a study on judged items, as one more table of scores: what weights and rates were tuned for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from harness.metrics import METRICS
from harness.report.blocks import Block
from harness.report.numbers import number
from harness.tasks import TASKS

QUALITY = "quality"
PLAIN = {"locate": ("iou", "accuracy")}  # tasks whose combinations train several metrics, each counted as it is


def quality(blocks: Sequence[Block], task: str) -> Block | None:
    """One block of the means of several metrics item by item; None where a task has no such score, or what it needs was not
    measured.

    blocks: those of one protocol and test set. Where a task counts metrics as shares of the way from the unprocessed recording to
    an oracle (`Denoise.quality`), these are taken, not clipped, so that the mean over items is that of the metrics.
    """
    by_metric = {block.metric: block for block in blocks if block.losses}
    wanted = dict(getattr(TASKS.get(task), "quality", ())) or dict.fromkeys(PLAIN.get(task, ()), "")
    if not wanted or not set(wanted) <= set(by_metric):
        return None
    used = [by_metric[metric] for metric in wanted]
    scales = [_scale(block, wanted[block.metric]) for block in used]
    if not all(np.isfinite(scale) and scale > 0 for _, scale in scales):
        return None
    names = [name for name in used[0].losses if all(name in block.losses for block in used)]
    losses = {name: _mean([block.losses[name] for block in used], scales) for name in names}
    return Block(used[0].protocol, used[0].test_set, QUALITY, losses, {}, {}, used[0].clusters, 0, {})


def _scale(block: Block, oracle: str) -> tuple[float, float]:
    """Zero and unit of a metric."""
    if not oracle:
        return 0.0, 1.0
    if block.baseline not in block.controls or oracle not in block.controls:
        return np.nan, np.nan
    zero = float(block.controls[block.baseline].to_numpy().mean())
    return zero, float(block.controls[oracle].to_numpy().mean()) - zero


def _mean(tables: Sequence[pd.DataFrame], scales: Sequence[tuple[float, float]]) -> pd.DataFrame:
    shares = [(table - zero) / unit for table, (zero, unit) in zip(tables, scales, strict=True)]
    items = [item for item in shares[0].columns if all(item in share.columns for share in shares)]
    seeds = [seed for seed in shares[0].index if all(seed in share.index for share in shares)]
    return sum(share.loc[seeds, items] for share in shares) / len(shares)  # type: ignore[return-value]


def label(metric: str) -> str:
    return METRICS[metric].label if metric in METRICS else metric


def told(metric: str, value: float, signed: bool = False) -> str:
    """A score, or a difference, of a metric or of the selection score."""
    if metric in METRICS:
        return number(metric, value, signed)
    text = "–" if pd.isna(value) else f"{value:+.3f}" if signed else f"{value:.3f}"
    return text.replace("-", "−")
