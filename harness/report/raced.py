"""Which losses a race has stopped, what that has saved, and how their pairs are judged.

What a look has decided stays decided: no seeds are left to decide it again, and losses left with three seeds make a table's family
of pairs larger than a whole study's is. So a pair of which one was beaten by the first of a look leaves the family and keeps the
p-value that the race gave it, unless later seeds make it larger; and pairs of two stopped losses, which the race did not ask
about, take a tenth of the weight of a pair in Holm's correction. Without the two a loss that is out is printed as tied for the
first place in one race of eight that a whole study would have told from it (sim).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from harness.intervals import ALPHA, Array, holm
from harness.report.blocks import each
from harness.report.numbers import listed

SET = "matched"  # the test set that races are decided on
LESS = 0.1  # the weight of a pair of two stopped losses


@dataclass(frozen=True)
class Decided:
    """What a race has decided. looks: how many share the level; stopped: names; beaten: metric -> (winner, loser) -> p-value,
    adjusted for pairs and looks, where one of the two was stopped."""

    looks: int
    stopped: frozenset[str]
    beaten: dict[str, dict[tuple[str, str], float]]


def raced(runs: pd.DataFrame) -> pd.DataFrame:
    """Of named runs of one protocol the losses that got fewer seeds: name (index), seeds, of, looks. A loss that has more seeds
    than the race gave it, because it was confirmed without one too, is not among them."""
    told = _told(runs)
    had = runs.groupby("name")["seed"].nunique()
    out = {name: own for name, own in told.items() if "seeds" in own and had[name] <= own["seeds"]}
    return pd.DataFrame(list(out.values()), list(out), ["seeds", "of", "looks"]).rename_axis("name")


def decided(runs: pd.DataFrame) -> Decided | None:
    """Of named runs of one protocol; None where no race has stopped a loss."""
    out, told = raced(runs), _told(runs)
    if out.empty:
        return None
    trained = runs[runs["role"] != "control"]
    names = trained.groupby(["loss", "weighting"])["name"].agg(lambda own: own.iloc[0] if own.nunique() == 1 else "")
    stopped, beaten = frozenset(out.index), dict[str, dict[tuple[str, str], float]]()
    for name, own in told.items():
        for metric, (loss, weighting, p) in own.get("beaten", {}).items():
            pair = str(names.get((loss, weighting), "")), name
            if pair[0] and not stopped.isdisjoint(pair):
                beaten.setdefault(metric, {})[pair] = float(p)
    return Decided(max(map(len, out["looks"])), stopped, beaten)


def judged(
    p: Array, pairs: Sequence[tuple[str, str]], race: Decided | None, test_set: str, metric: str
) -> tuple[Array, Array]:
    """Adjusted p-values of the (winner, loser) pairs of a table, and the levels that they were judged at, as `holm` gives them."""
    if race is None or test_set != SET or metric not in race.beaten:
        return holm(p)
    of_race = race.beaten[metric]
    # As certain as the race was, or less where seeds have come since: of those it asks for the level of a look.
    own = np.maximum([of_race.get(pair, np.nan) for pair in pairs], race.looks * p)  # NaN where it has decided nothing
    kept = own < ALPHA
    weights = np.where([race.stopped.issuperset(pair) for pair in pairs], LESS, 1.0)
    adjusted, levels = holm(np.where(kept, np.nan, p), weights=weights)
    share = np.divide(p, own, out=np.full(p.shape, 1 / race.looks), where=own > 0)
    return np.where(kept, own, adjusted), np.where(kept, ALPHA * share, levels)


def notes(runs: pd.DataFrame) -> dict[str, str]:
    """Loss -> what to print beside it."""
    return {row.name: f"race decided after {row.seeds} of {row.of} seeds" for row in each(raced(runs).reset_index())}


def sentences(runs: pd.DataFrame) -> list[str]:
    """How the race was run, who stopped after how many seeds, how many confirming runs that has saved, and what it means for the
    tables; [] without a race, and where what it has stopped was confirmed without one since."""
    out, told = raced(runs), list(_told(runs).values())
    if not told or (out.empty and any("seeds" in own for own in told)):
        return []
    last = max(told, key=lambda own: len(_taken(own)))
    trained = runs[runs["role"] != "control"]
    saved, made = int((out["of"] - out["seeds"]).sum()), int(trained.groupby("name")["seed"].nunique().sum())
    groups = [f"{listed(list(own.index))} after {seeds} seeds" for seeds, own in out.groupby("seeds")]
    taken, count = _taken(last), len(last["looks"])
    said = (
        f"Raced: whoever has won the first place for certain, or was beaten for certain by the first, on every metric of the "
        f"tuning ({SET}) gets no more seeds. {len(taken)} look{'s' * (len(taken) > 1)} of {count} (after "
        f"{listed([str(n) for n in taken])} of {last['of']} seeds), each at {100 * ALPHA / count:.2g} %. "
        f"Stopped: {'; '.join(groups) or 'nobody'}. {saved} of {saved + made} confirming runs were saved "
        f"({100 * saved / (saved + made):.0f} %)."
    )
    for seeds, names in last.get("void", {}).items():
        why = f"no finished runs of {listed(names)}" if names else "no scores to compare"
        said += f" The look after {seeds} seeds was void: {why}."
    return [said, *([_meaning(out, trained)] if len(out) else [])]


def _meaning(out: pd.DataFrame, trained: pd.DataFrame) -> str:
    """What it means for the tables that some were stopped."""
    said = (
        f"On what was raced on, a loss that the first has beaten stays apart from it, and pairs of two stopped losses take a tenth "
        f"of the weight in Holm’s correction. The comparison at the end is no look: it has {100 * ALPHA:g} % of its own, so that "
        f"race and comparison together say something false of a metric in at most {200 * ALPHA:g} % of studies. Other metrics and "
        f"sets were not raced on: with the seeds left more losses may tie there, for the first place too."
    )
    for name in out.index[out.index.isin(trained.loc[trained["role"] == "reference", "name"])]:
        said += f" What is said against the reference {name} rests on its {out.loc[name, 'seeds']} seeds."
    return said


def _told(runs: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Name -> what a race has said of it."""
    known = runs[runs["raced"].notna()].drop_duplicates("name")
    return dict(zip(known["name"], known["raced"], strict=True))


def _taken(told: dict[str, Any]) -> list[int]:
    """The looks that were taken; before they were kept, those up to the one that stopped the loss."""
    return told.get("taken", [at for at in told["looks"] if at <= told.get("seeds", 0)])
