"""How much better a net does on what it was trained on: the gap between training and test, and what narrows it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from harness.intervals import Estimate, interval, two_way
from harness.metrics import METRICS
from harness.report.blocks import HEARD, Block, blocks
from harness.report.numbers import listed, number, span
from harness.report.words import HEADLINE

if TYPE_CHECKING:
    from harness.report.runs import Results

UNHEARD = "matched"


def gap(heard: Estimate, unheard: Estimate) -> Estimate:
    """Difference of two means over different items: their variances add, with the degrees of freedom of Welch (1947) and
    Satterthwaite (1946).

    Equal seeds pull both means the same way, which this does not use: the interval is rather too wide than too narrow.
    """
    one, other = heard.se**2, unheard.se**2
    spread = one**2 / heard.df + other**2 / unheard.df
    df = np.divide((one + other) ** 2, spread, out=np.full_like(spread, np.inf), where=spread > 0)
    return Estimate(heard.mean - unheard.mean, np.sqrt(one + other), df)


def gaps(results: Results, protocol: str) -> list[dict]:
    """One dict a headline metric and loss: metric, loss, heard and unheard (mean gains over the baseline), gap, low, high (95 %),
    and change, change_low, change_high: the gap against that of the reference loss, paired by seed and item within each set.
    Empty without a set of what training hears.
    """
    scores = results.scores
    if scores.empty or HEARD not in set(scores["test_set"]):
        return []
    found = {(b.test_set, b.metric): b for b in blocks(results) if b.protocol == protocol and b.metric in HEADLINE}
    runs = results.runs
    named = runs[(runs["protocol"] == protocol) & (runs["role"] == "reference")]["loss"]
    reference = str(named.iloc[0]) if len(named) else ""
    rows = []
    for (test_set, metric), heard in found.items():
        unheard = found.get((UNHEARD, metric))
        if test_set != HEARD or unheard is None or not (heard.baseline and unheard.baseline):
            continue
        for loss in [name for name in heard.losses if name in unheard.losses]:
            row: dict[str, Any] = {"metric": metric, "loss": loss}
            row |= {"heard": _mean(heard, loss), "unheard": _mean(unheard, loss)}
            row |= dict(zip(("gap", "low", "high"), _against(heard, unheard, loss, heard.baseline), strict=True))
            change = (np.nan,) * 3
            if loss != reference and reference in heard.losses and reference in unheard.losses:
                change = _against(heard, unheard, loss, reference)
            rows.append(row | dict(zip(("change", "change_low", "change_high"), change, strict=True)))
    return rows


def table(results: Results, protocol: str) -> list[dict]:
    """The same as text: metric, loss, heard, unheard, gap, interval, change, change_interval, narrower (bool, for certain)."""
    return [
        {"metric": METRICS[row["metric"]].label, "loss": row["loss"]}
        | {key: number(row["metric"], row[key], True) for key in ("heard", "unheard", "gap", "change")}
        | {"interval": span(row["metric"], row["low"], row["high"], True)}
        | {"change_interval": span(row["metric"], row["change_low"], row["change_high"], True)}
        | {"narrower": bool(row["change_high"] < 0)}
        for row in gaps(results, protocol)
    ]


def words(rows: list[dict]) -> str:
    """What a table says: under which losses the gap is narrower than under the reference, by metric."""
    found: dict[str, list[str]] = {row["metric"]: [] for row in rows}
    for row in rows:
        if row["narrower"]:
            found[row["metric"]].append(row["loss"])
    told = [f"on {metric} under {listed(losses, 9)}" for metric, losses in found.items() if losses]
    if not told:
        return "No loss narrows the gap for certain (95 %)."
    rest = [metric for metric, losses in found.items() if not losses]
    none = f"; on {listed(rest, 9)} no loss narrows it" if rest else ""
    return (
        f"The gap is narrower (95 %, each difference by itself) than under the reference loss {'; '.join(told)}{none}."
    )


def note(baseline: str) -> str:
    """How the table is read."""
    return (
        f"Mean gain over {baseline} on mixtures of the recordings that training hears and on matched test items, and the gap "
        "between them. “Change” compares the gap with that of the reference loss. The intervals do not use that a seed "
        "pulls both sets the same way, so they are rather too wide."
    )


def _mean(block: Block, loss: str) -> float:
    return float(block.difference(loss, block.baseline).mean())


def _against(heard: Block, unheard: Block, loss: str, other: str) -> tuple[float, float, float]:
    sets = (two_way(block.difference(loss, other), block.clusters.reindex(_items(block))) for block in (heard, unheard))
    estimate = gap(*sets)
    low, high = interval(estimate)
    return float(estimate.mean), float(low), float(high)


def _items(block: Block) -> list[str]:
    return list(next(iter(block.losses.values())).columns)
