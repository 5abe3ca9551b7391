"""Which losses a race has stopped, and what that has saved."""

from __future__ import annotations

import pandas as pd

from harness.intervals import ALPHA
from harness.report.blocks import each
from harness.report.numbers import listed


def raced(runs: pd.DataFrame) -> pd.DataFrame:
    """Of named runs of one protocol the losses that got fewer seeds: name (index), seeds, of, looks. A loss that has more seeds
    than the race gave it, because it was confirmed without one too, is not among them."""
    out = runs[runs["raced"].notna()]
    told = pd.DataFrame(list(out["raced"]), out.index, ["seeds", "of", "looks"])
    told = told.assign(name=out["name"], had=out.groupby("name")["seed"].transform("nunique"))
    return told[told["had"] <= told["seeds"]].drop_duplicates("name").set_index("name")[["seeds", "of", "looks"]]


def notes(runs: pd.DataFrame) -> dict[str, str]:
    """Loss -> what to print beside it."""
    return {row.name: f"race decided after {row.seeds} of {row.of} seeds" for row in each(raced(runs).reset_index())}


def sentence(runs: pd.DataFrame) -> str:
    """Who stopped after how many seeds, and how many confirming runs that has saved; "" without a race."""
    out = raced(runs)
    if out.empty:
        return ""
    trained = runs[runs["role"] != "control"]
    saved, made = int((out["of"] - out["seeds"]).sum()), int(trained.groupby("name")["seed"].nunique().sum())
    groups = [f"{listed(list(own.index))} after {seeds} seeds" for seeds, own in out.groupby("seeds")]
    looks = out["looks"].iloc[0]
    return (
        f"Raced: whoever has won or lost the first place for certain on every metric of the tuning gets no more seeds, at "
        f"{len(looks)} look{'s' * (len(looks) > 1)} (after {listed([str(n) for n in looks])} of {out['of'].iloc[0]} seeds), "
        f"each at {100 * ALPHA / len(looks):.2g} %. Stopped: {'; '.join(groups)}. {saved} of {saved + made} confirming "
        f"runs were saved ({100 * saved / (saved + made):.0f} %)."
    )
