"""Which loss should I use? What the evidence of one protocol says to that, and how far it goes."""

from __future__ import annotations

from harness.report import cost, settled, tables, words
from harness.report.numbers import between, listed, times
from harness.report.overall import OVERALL
from harness.report.view import View

MOST = 5  # names in a sentence


def sentence(view: View) -> str:
    """The advice alone; "" where no trained loss has test scores."""
    told, few = sentences(view), words.preliminary(view.results, view.analysis, view.protocol)
    return f"{told[0].removesuffix('.')}{' (preliminary)' if few else ''}." if told else ""


def sentences(view: View) -> list[str]:
    """Sentences that end in what makes them preliminary; none where no trained loss has test scores.

    The advice is the losses that are *unbeaten*: no other is better for certain on any headline metric of the first test set. A
    mean that is only higher is no reason to take one of two losses.
    """
    if not view.sets or view.sets[0] not in view.answers:
        return []
    first, *others = view.answers
    names = _ranked(view, first)
    best = unbeaten(view, first)
    metrics = listed([a["label"] for a in view.answers[first] if "loss" in a])
    said = [f"{_where(view, len(names))}: {_use(view, best, len(names), metrics)}"]
    if len(best) < len(names) or not view.once:
        said += _first_of_all(view, first, best)
        said += _cheapest(view, best)
        said += _gamed(view, first)
        said += [_elsewhere(view, name, best) for name in others]
        said += settled.in_brief(view)
    few = words.preliminary(view.results, view.analysis, view.protocol)
    return [*said, *([f"Preliminary: {'; '.join(few)}."] if few else [])]


def unbeaten(view: View, test_set: str) -> list[str]:
    """The losses that none beats for certain on any headline metric of a test set, best overall place first."""
    tops = [set(a["unbeaten"]) for a in view.answers[test_set] if "loss" in a]
    return [name for name in _ranked(view, test_set) if all(name in top for top in tops)]


def _ranked(view: View, test_set: str) -> list[str]:
    rows = view.ranking[(view.ranking["test_set"] == test_set) & view.ranking["rank"].notna()]
    known = set(rows["loss"])
    return [name for name in tables.ordered(view.analysis, view.protocol, test_set) if name in known]


def _where(view: View, count: int) -> str:
    kind = ", synthetic speech" if words.synthetic(str(view.runs["corpus"].iloc[0])) else ""
    seeds = between(view.losses.groupby("name")["seed"].nunique())
    return f"{view.heading} ({count} loss{'es' * (count > 1)}, {seeds} seed{'s' * (seeds != '1')}{kind})"


def _use(view: View, best: list[str], count: int, metrics: str) -> str:
    if count == 1:
        return f"{best[0]} is the only loss, so that there is no choice to advise on."
    if len(best) == count and view.once:
        means = [f"{a['loss']} on {a['label']} ({a['value']})" for a in view.answers[view.sets[0]] if "loss" in a]
        return f"one seed tells nothing for certain; the highest means are those of {listed(means)}."
    if len(best) == count:
        return f"nothing parts the losses for certain on {metrics}: take the cheapest."
    if best:
        return f"use {_any(best)}: no other loss is better for certain on {metrics}."
    choice = "; ".join(f"for {a['label']} {_any(a['unbeaten'])}" for a in view.answers[view.sets[0]] if "loss" in a)
    return f"it depends on what counts: {choice}."


def _any(names: list[str]) -> str:
    return listed(names, MOST).replace(" and ", " or ")


def _first_of_all(view: View, test_set: str, best: list[str]) -> list[str]:
    """Which of several is first over the metrics that nobody optimises."""
    overall = next((a for a in view.answers[test_set] if a["label"] == OVERALL), None)
    if overall is None or len(best) == 1:
        return []
    return [f"First over {overall['referees']}, which no loss with an overall place optimises: {overall['losses']}."]


def _cheapest(view: View, best: list[str]) -> list[str]:
    rows = cost.at_home(view)
    rows = rows[rows["name"].isin(best)]
    if rows.empty:
        return []
    row = rows.sort_values("step_ratio", kind="stable").iloc[0]
    ratio, place = times(float(row["step_ratio"])), row["place"]
    which = row["name"] if len(best) == 1 else f"The cheapest of them is {row['name']}, which"
    return [f"{which} takes {ratio} the step of {view.reference} ({place})."]


def _gamed(view: View, test_set: str) -> list[str]:
    """Of losses that are advised for a metric: which win only what they optimise, and lose what they do not."""
    advised = {name for a in view.answers[test_set] if "loss" in a for name in a["unbeaten"]}
    rows = view.analysis.goodhart
    rows = rows[(rows["protocol"] == view.protocol) & (rows["test_set"] == test_set) & rows["loss"].isin(advised)]
    won, lost = ([words.labels(text) for text in rows[name]] for name in ("gained", "lost"))
    return [
        f"{loss} beats {view.reference} on what it optimises ({gained}) and loses on {other}."
        for loss, gained, other in zip(rows["loss"], won, lost, strict=True)
    ]


def _elsewhere(view: View, test_set: str, best: list[str]) -> str:
    """Whether the advice holds on another test set, and what every loss makes worse there."""
    there, shown = unbeaten(view, test_set), f"On {test_set.replace('_', ' ')} items"
    harmed = [a["label"] for a in view.answers[test_set] if a.get("worse")]  # by the best, so by the others too
    harm = f"; every loss lowers {listed(harmed)}" if harmed else ""
    if not there:
        return f"{shown} no loss is unbeaten{harm}."
    if set(there) == set(best):
        return f"{shown} the same are unbeaten{harm}."
    return f"{shown} {listed(there, MOST)} {'is' if len(there) == 1 else 'are'} unbeaten{harm}."
