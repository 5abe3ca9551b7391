"""Numbers and lists as people write them."""

from __future__ import annotations

import pandas as pd

from harness.metrics import METRICS


def digits(metric: str) -> int:
    """Places behind the point with which scores of a metric are printed."""
    return 3 if not METRICS[metric].unit else 1 if metric == "snr" else 2


def times(ratio: float) -> str:
    """A ratio of costs in a sentence: "3.1 ×", "12 ×"; a dash for NaN."""
    return "–" if pd.isna(ratio) else f"{ratio:.0f} ×" if ratio >= 10 else f"{ratio:.1f} ×"


def number(metric: str, value: float, signed: bool = False) -> str:
    """A score as people write it: 2.31, 0.873, 11.9; with `signed` a difference: +0.41, −0.02. A dash for NaN."""
    if pd.isna(value):
        return "–"
    places = digits(metric)
    value = round(value, places) + 0.0  # a difference that is only rounding has no sign
    text = f"{value:+.{places}f}" if signed else f"{value:.{places}f}"
    return text.replace("-", "−")


def span(metric: str, low: float, high: float, signed: bool = False) -> str:
    """An interval: "[2.20, 2.42]", or "" when it is not known."""
    return "" if pd.isna(low) else f"[{number(metric, low, signed)}, {number(metric, high, signed)}]"


def listed(names: list[str], most: int = 6) -> str:
    """ "a, b and c", or with more than `most` names "a, b, c and 9 more"."""
    names = [str(name) for name in names]
    if len(names) > most:
        names = [*names[: most - 1], f"{len(names) - most + 1} more"]
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def between(counts: pd.Series) -> str:
    """The least and the largest of counts: "3 to 5", or "5"; "0" of none."""
    low, high = (int(counts.min()), int(counts.max())) if len(counts) else (0, 0)
    return f"{low}" if low == high else f"{low} to {high}"


def days(made: pd.Series) -> str:
    """The days of times such as "2026-11-25T18:41:07": "2026-11-25", "2026-11-24 to 2026-11-25", "" of none."""
    found = sorted({str(time)[:10] for time in made.dropna()})
    return " to ".join(dict.fromkeys([found[0], found[-1]])) if found else ""
