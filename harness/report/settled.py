"""Has the ranking settled? The same losses after fewer updates, in trainings of their own with the whole schedule, beside it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from harness.intervals import ALPHA
from harness.metrics import METRICS
from harness.report.blocks import each
from harness.report.compared import side_by_side
from harness.report.numbers import listed
from harness.report.reliability import ENOUGH, tau_b
from harness.report.view import View


def section(view: View) -> dict[str, Any]:
    """Each protocol of fewer updates beside this one: before and after (updates), sets."""
    found = []
    for protocol in view.results.shorter.get(view.protocol, ()):
        before = View(view.results, view.analysis, protocol)
        sets = [_compared(before, view, name) for name in view.sets if name in before.sets]
        if sets := [one for one in sets if len(one["rows"]) > 1]:
            found.append({"before": _confirmed(before), "after": _confirmed(view), "sets": sets})
    return {"found": found} if found else {}


def in_brief(view: View) -> list[str]:
    """For who wants the answer alone: which losses were first after fewer updates, and where the order has not settled."""
    said = []
    for one in section(view).get("found", []):
        first: list[tuple[str, str, str]] = next(
            (own["first"] for own in one["sets"] if own["name"] == view.sets[0]), []
        )
        moved = [own["name"].replace("_", " ") for own in one["sets"] if own["settled"] is False]
        parts = [f"another loss was first: {listed([f'{where} {was}' for where, was, _ in first], 9)}"] if first else []
        parts += [f"the order of {listed(moved)} items was another"] if moved else []
        said += [f"After {one['before']} updates {'; '.join(parts)}."] if parts else []
    return said


def _compared(before: View, after: View, test_set: str) -> dict[str, Any]:
    """`side_by_side`; words; settled: whether the order has, None where no pair tells; first: where another loss is first for
    certain, and which was and is."""
    it = side_by_side(before, after, test_set)
    names = [row["loss"] for row in it["rows"]]
    agree = [agreement(before, after, test_set, metric, names) for metric in it["metrics"]]
    words = [f"From {_confirmed(before)} to {_confirmed(after)} updates {it['moved'] or 'no loss changes its place'}."]
    settled = None
    if known := [one for one in agree if one["pairs"]]:
        told = [f"{METRICS[one['metric']].label} {one['tau']:.2f} ({one['pairs']} pairs)" for one in known]
        settled = min(one["tau"] for one in known) >= ENOUGH
        words.append(
            f"Kendall’s tau-b of the two orders, over the pairs that {_confirmed(after)} updates part for certain: "
            f"{listed(told, 9)}. {'The order has settled' if settled else 'The order has not settled'} (at least {ENOUGH})."
        )
    first = [*_overall(it["rows"]), *(one["first"] for one in agree if one["first"])]
    if first:
        told = [f"{where} {now} instead of {was}" for where, was, now in first]
        words.append(f"Another loss is first than after {_confirmed(before)}: {listed(told, 9)}.")
    turned = [f"{b} over {a} on {METRICS[one['metric']].label}" for one in agree for a, b in one["turned"]]
    if turned:
        words.append(
            f"For certain both times, but the other way round after {_confirmed(before)}: {listed(turned, 9)}."
        )
    rates = _rates(before, after, names)
    if rates:
        words.append(
            f"Tuned for {_confirmed(before)} and for {_confirmed(after)}, the learning rate of {listed(rates, 9)}."
        )
    return it | {"words": " ".join(words), "settled": settled, "first": first}


def agreement(before: View, after: View, test_set: str, metric: str, names: list[str]) -> dict[str, Any]:
    """tau: tau-b of both orders by means over the pairs of these losses that `after` parts for certain; pairs: how many those are;
    turned: those of them, better first by `after`, that `before` parts for certain the other way round; first: None, or (where, the
    best mean of `before`, that of `after`) where they are two losses that `after` parts for certain."""
    apart, earlier = (_apart(view, test_set, metric, names) for view in (after, before))
    was, now = (_means(view, test_set, metric).reindex(names).to_numpy() for view in (before, after))
    places = {name: place for place, name in enumerate(names)}
    one, other = (np.array([places[pair[k]] for pair in apart], dtype=int) for k in (0, 1))
    tau = tau_b(was, now, one, other) if apart else float("nan")
    turned = [pair for pair in apart if pair[::-1] in set(earlier)]
    best = names[int(np.argmax(was))], names[int(np.argmax(now))]
    first = (f"on {METRICS[metric].label}", *best) if best[::-1] in apart else None
    return {"metric": metric, "tau": tau, "pairs": len(apart), "turned": turned, "first": first}


def _overall(rows: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    was, now = ([row["loss"] for row in rows if row[key] == 1] for key in ("was", "now"))
    return [] if set(was) & set(now) else [("overall", listed(was), listed(now))]


def _rates(before: View, after: View, names: list[str]) -> list[str]:
    """ "a is 0.01 and 0.003" of each loss for which another rate was chosen."""
    was, now = (view.losses.drop_duplicates("name").set_index("name")["lr"].astype(float) for view in (before, after))
    return [f"{name} is {was[name]:.4g} and {now[name]:.4g}" for name in names if not np.isclose(was[name], now[name])]


def _apart(view: View, test_set: str, metric: str, names: list[str]) -> list[tuple[str, str]]:
    pairs = view.analysis.pairs
    own = pairs[(pairs["protocol"] == view.protocol) & (pairs["test_set"] == test_set) & (pairs["metric"] == metric)]
    own = own[(own["p_adjusted"] < ALPHA) & own["a"].isin(names) & own["b"].isin(names)]
    return [(str(pair.a), str(pair.b)) for pair in each(own)]


def _means(view: View, test_set: str, metric: str) -> pd.Series:
    rows = view.ranking[(view.ranking["test_set"] == test_set) & (view.ranking["metric"] == metric)]
    return rows.set_index("loss")["mean"]


def _confirmed(view: View) -> str:
    return f"{int(view.losses['updates'].max()):,}"
