"""Is a weighting worth it? Each one against equal weights, and each that learns against the weights that it ended on, frozen."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from harness.report.blocks import AND, Block, each
from harness.report.differences import Difference, differed
from harness.report.numbers import listed
from harness.report.quality import label, told

COLUMNS = ["group", "test_set", "metric", "a", "b", "diff", "low", "high", "sure", "seeds", "judges"]
BETTER, WORSE, UNTOLD = "better", "worse", "cannot tell"


def pairs(own: pd.DataFrame) -> list[tuple[str, str, str]]:
    """What is compared of one group: (a, b, what the pair judges, "equal" or "frozen").

    own: rows of `search.balances`. Of fixed weights the plain sum alone, because the best of a grid is picked on these scores.
    """
    rows = list(each(own.drop_duplicates("name")))
    equal = next((row.name for row in rows if row.weighting == "equal"), None)
    others = [row.name for row in rows if row.weighting not in ("equal", "fixed") or row.plain]
    found = [(name, equal, "equal") for name in others] if equal is not None else []
    for end in [row for row in rows if row.frozen_of]:
        learned = [row.name for row in rows if row.weighting != "frozen" and row.shown in end.frozen_of.split(AND)]
        found += [(name, end.name, "frozen") for name in learned]
    return found


def table(balanced: pd.DataFrame, blocks: list[Block]) -> pd.DataFrame:
    """One row a pair, test set and metric: COLUMNS. The intervals of one group, set and metric are adjusted together (Holm)."""
    rows = []
    for group, own in balanced.groupby("group", sort=False):
        wanted = pairs(own)
        for block in blocks:
            known = [pair for pair in wanted if pair[0] in block.losses and pair[1] in block.losses]
            if not known:
                continue
            named = [(a, b) for a, b, _ in known]
            found = differed(named, [block.difference(a, b) for a, b in named], block.of_items)
            about = {"group": group, "test_set": block.test_set, "metric": block.metric}
            rows += [about | _row(d) | {"judges": judges} for d, (_, _, judges) in zip(found, known, strict=True)]
    return pd.DataFrame(rows, columns=COLUMNS)


def _row(d: Difference) -> dict[str, object]:
    return {"a": d.a, "b": d.b, "diff": d.mean, "low": d.low, "high": d.high, "sure": d.sure, "seeds": d.seeds}


def _verdict(row: Any) -> str:
    return (BETTER if row.diff > 0 else WORSE) if row.sure else UNTOLD


def sentences(rows: pd.DataFrame, shown: dict[str, str]) -> list[str]:
    """Of each group on the first metric of the first test set: what beats equal weights for certain, and whether the path of the
    learned ones mattered. shown: loss -> its weighting."""
    said = []
    for group, own in rows.groupby("group", sort=False):
        first = own[(own["test_set"] == own["test_set"].iloc[0]) & (own["metric"] == own["metric"].iloc[0])]
        for judges, beside in (
            ("equal", "equal weights"),
            ("frozen", "the weights that it ended on, frozen from the start"),
        ):
            pairs_ = list(each(first[first["judges"] == judges]))
            if not pairs_:
                continue
            of = {kind: [shown[row.a] for row in pairs_ if _verdict(row) == kind] for kind in (BETTER, WORSE, UNTOLD)}
            parts = [
                f"{listed(of[BETTER], 12)} {'is' if len(of[BETTER]) == 1 else 'are'} better for certain"
                if of[BETTER]
                else "",
                f"{listed(of[WORSE], 12)} {'is' if len(of[WORSE]) == 1 else 'are'} worse for certain"
                if of[WORSE]
                else "",
                f"{listed(of[UNTOLD], 12)} cannot be told from {'them' if judges == 'equal' else 'it'}"
                if of[UNTOLD]
                else "",
            ]
            where = f"{label(first['metric'].iloc[0])}, {first['test_set'].iloc[0]} items"
            said.append(f"{group}, beside {beside} ({where}): {'; '.join(filter(None, parts))}.")
    return said


def as_text(rows: pd.DataFrame) -> list[dict[str, str]]:
    """The table for people: group, test_set, metric, pair, diff, interval, verdict."""
    return [
        {"group": row.group, "test_set": row.test_set, "metric": label(row.metric), "pair": f"{row.a} − {row.b}"}
        | {"diff": told(row.metric, row.diff, True), "verdict": _verdict(row)}
        | {"interval": _ends(row.metric, row.low, row.high)}
        for row in each(rows)
    ]


def _ends(metric: str, low: float, high: float) -> str:
    return "unknown" if np.isnan(low) else f"[{told(metric, low, True)}, {told(metric, high, True)}]"
